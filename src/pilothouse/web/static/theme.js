// Before anything is drawn: the theme that the viewer chose here, if any.
"use strict";
try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* a browser that keeps nothing follows its system */ }
