// Every <time> in the viewer's zone: how far away, or exact with data-exact; the exact instant on hover.
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const HOVER = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

// How far the server's clock is from the viewer's; what is on the way to the viewer is not taken for a difference.
const TOLERATED_MS = 5000;
const difference = new Date(document.documentElement.dataset.now) - Date.now();
const ahead = Math.abs(difference) > TOLERATED_MS ? difference : 0;

export function span(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function away(instant) {
  const seconds = (instant - Date.now() - ahead) / 1000;
  const told = span(Math.abs(seconds));
  if (told === "now") return told;
  return seconds > 0 ? `in ${told}` : `${told} ago`;
}

export function showTimes(root) {
  for (const node of root.querySelectorAll("time[datetime]")) {
    const instant = new Date(node.dateTime);
    if (Number.isNaN(instant.getTime())) continue;
    const text = node.dataset.exact === undefined ? away(instant) : EXACT.format(instant);
    if (node.textContent !== text) node.textContent = text;
    node.title = `${HOVER.format(instant)}\n${node.dateTime}`;
  }
}
setInterval(() => showTimes(document), 5000);

// Fields for an instant, which the server writes and reads in UTC: the viewer's zone is typed there too.
const local = (instant) => new Date(instant - instant.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
const fieldsOf = (root) => root.querySelectorAll("input[type=datetime-local]");

export function localizeFields() {
  for (const field of fieldsOf(document)) {
    if (field.value && field.value === field.defaultValue) field.value = local(new Date(`${field.value}Z`));
    for (const label of field.labels) label.querySelector("[data-zone]").textContent = "your time";
  }
  document.addEventListener("formdata", (event) => {
    for (const field of fieldsOf(event.target))
      if (field.value && !field.disabled) event.formData.set(field.name, new Date(field.value).toISOString().slice(0, 16));
  });
}
