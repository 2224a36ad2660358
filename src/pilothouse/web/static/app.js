// What makes pages live: times in the viewer's zone, news from the server, buttons that ask first. Pages work without.
import { drawCharts } from "./charts.js";
import { followEdits } from "./edits.js";
import { localizeFields, showTimes } from "./times.js";
import { follow } from "./live.js";

function dress(root) {
  showTimes(root);
  drawCharts(root);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy !== undefined) copy(button);
  if (button.dataset.themeButton !== undefined) switchTheme();
  if (button.dataset.menu !== undefined) toggleMenu(button);
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.ask || event.target.dataset.ask;
  if (question && !window.confirm(question)) return event.preventDefault();
  if (event.target.method === "get") dropEmptyFields(event.target);
  else event.target.inert = true; // one click is one request
});
window.addEventListener("pageshow", () => document.querySelectorAll("form[inert]").forEach((form) => { form.inert = false; }));

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch { // a page without TLS, or a browser that was told not to: then it is chosen, and one key away
    return getSelection().selectAllChildren(button.previousElementSibling);
  }
  button.dataset.label ??= button.textContent;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = button.dataset.label; }, 1200);
}

function switchTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* then it lasts as long as the page */ }
  drawCharts(document, { anew: true });
}

function toggleMenu(button) {
  const isOpen = document.getElementById("menu").classList.toggle("open");
  button.setAttribute("aria-expanded", String(isOpen));
}

function dropEmptyFields(form) {
  const empty = [...form.elements].filter((field) => field.name && !field.disabled && field.value === "");
  empty.forEach((field) => { field.disabled = true; });
  setTimeout(() => empty.forEach((field) => { field.disabled = false; }));
}

// Keys: g and a letter open a page, / goes to the search.
const PAGES = { o: "/", r: "/runs", d: "/dead", a: "/approvals", g: "/agents", s: "/switches", b: "/budgets", e: "/effects", l: "/alerts", w: "/workers" };
let lastKey = "";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable]")) return;
  if (event.key === "/") {
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  } else if (lastKey === "g" && PAGES[event.key] && document.getElementById("menu")) {
    location.href = PAGES[event.key];
  }
  lastKey = event.key;
});

dress(document);
localizeFields();
followEdits();
follow(dress);
