// Keeps a page fresh: when the server tells of a change that a region names in data-live, the page is fetched again and
// each such region takes what differs. Forms outside of these regions, and what is typed in them, stay as they are.
const LEAST_MS = 1000;
const AT_LATEST_MS = 15000;

let dress = () => {};
let timer = null;
let fetchedAt = Date.now();
let isFetching = false;

const regions = () => [...document.querySelectorAll("[data-live][id]")];

function concerns(topics) {
  if (topics.includes("all")) return true;
  return regions().some((region) => region.dataset.live.split(" ").some((topic) => topic === "any" || topics.includes(topic)));
}

function soon(wait = LEAST_MS - (Date.now() - fetchedAt)) {
  if (timer === null && !document.hidden) timer = setTimeout(refresh, Math.max(0, wait));
}

async function refresh() {
  timer = null;
  if (isFetching) return soon(LEAST_MS);
  isFetching = true;
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return location.reload(); // the session is over
    fetchedAt = Date.now();
    if (answer.ok) take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    else if (answer.status === 404) location.reload();
  } catch { /* the stream tells when the server is back */ } finally {
    isFetching = false;
  }
}

function take(fresh) {
  dress(fresh); // so that only real differences are found
  for (const region of regions()) {
    const other = fresh.getElementById(region.id);
    if (!other || region.isEqualNode(other)) continue;
    window.Idiomorph.morph(region, other, { ignoreActiveValue: true, callbacks: { beforeAttributeUpdated: keepsOpen, beforeNodeMorphed: keepsChart } });
  }
  dress(document);
}

// What goes on without any news, such as the steps of a run, says itself how often to look.
const pace = () => Number(document.querySelector("[data-pace]")?.dataset.pace) || AT_LATEST_MS;

const keepsOpen = (name, node) => !(name === "checked" || (name === "open" && node.tagName === "DETAILS"));
const keepsChart = (before, after) => !(before.classList?.contains("chart") && before.dataset.chart === after.dataset?.chart);

function say(text) {
  const node = document.getElementById("connection");
  node.hidden = !text;
  node.textContent = text;
}

let isAway = false;

function connect() {
  const stream = new EventSource("/live");
  stream.addEventListener("changed", (event) => { if (concerns(JSON.parse(event.data).topics)) soon(); });
  stream.onopen = () => {
    say("");
    if (isAway) soon(0);
    isAway = false;
  };
  stream.onerror = () => {
    isAway = true;
    say("Not connected. Trying again.");
    if (stream.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    setTimeout(() => { refresh(); connect(); }, 3000); // refused: perhaps the session is over, which the page then tells
  };
  window.addEventListener("pagehide", () => stream.close(), { once: true });
}

export function follow(dressed) {
  dress = dressed;
  if (!regions().length) return;
  connect();
  document.addEventListener("visibilitychange", () => soon());
  window.addEventListener("pageshow", (event) => { if (event.persisted) { connect(); soon(0); } });
  setInterval(() => { if (Date.now() - fetchedAt > pace() && !isAway) soon(0); }, LEAST_MS);
}
