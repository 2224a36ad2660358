// Draws what [data-chart] says: {"unit", "at": [seconds], "series": [{"name", "values", "tone"}], "stacked"?, "limit"?}.
const HEIGHT = 150;
const LEAST_INSTANTS = 10;
const DAY_SECONDS = 86400;
const MEASURED = new Set(["usd", "share", "s", "", undefined]);
// There is no half of a run: what is counted has steps of 1, 2, 5, 10, 20, …
const WHOLE_STEPS = Array.from({ length: 36 }, (_, place) => [1, 2, 5][place % 3] * 10 ** Math.floor(place / 3));
const drawn = new WeakMap();

// The axis and the legend read as the viewer's own clock and calendar do.
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const DATE = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function tone(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || "gray";
}

function written(unit, value) {
  if (value === null || value === undefined) return "–";
  if (unit === "usd") return value.toLocaleString(undefined, { style: "currency", currency: "USD", maximumFractionDigits: value && Math.abs(value) < 0.01 ? 6 : 2 });
  if (unit === "share") return `${(100 * value).toFixed(1)} %`;
  if (unit === "s") return value < 1 && value > 0 ? `${Math.round(value * 1000)} ms` : `${value.toLocaleString(undefined, { maximumFractionDigits: 1 })} s`;
  return `${value.toLocaleString(undefined, { maximumFractionDigits: 1 })}${unit ? ` ${unit}` : ""}`;
}

export function drawCharts(root, { anew = false } = {}) {
  const nodes = [...root.querySelectorAll("[data-chart]")];
  if (!nodes.length || root !== document || !window.uPlot) return;
  for (const node of nodes) {
    const before = drawn.get(node);
    if (before?.text === node.dataset.chart && before.plot.root.isConnected && !anew) continue;
    before?.plot.destroy();
    node.replaceChildren();
    const facts = JSON.parse(node.dataset.chart);
    if (!facts.at.length) continue;
    drawn.set(node, { text: node.dataset.chart, plot: draw(node, facts) });
  }
}

// From shortly before anything was known: an hour of nothing in front of the first minute would only squeeze it.
function known(facts) {
  const first = facts.at.findIndex((_, place) => facts.series.some((each) => (each.values[place] ?? null) !== null));
  const from = Math.max(0, Math.min(first - 1, facts.at.length - LEAST_INSTANTS));
  return [facts.at, ...facts.series.map((each) => each.values)].map((values) => values.slice(from));
}

// What the legend tells while nothing is pointed at: how it is now.
function tellLatest(plot) {
  if (plot.cursor.idx === null || plot.cursor.idx === undefined) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

function draw(node, facts) {
  const data = known(facts);
  const isLong = data[0].at(-1) - data[0][0] > DAY_SECONDS;
  const told = (at) => (isLong ? DATE : CLOCK).format(new Date(at * 1000));
  const isSparse = Math.max(...data.slice(1).map((values) => values.filter((value) => value !== null).length)) < LEAST_INSTANTS;
  const steps = MEASURED.has(facts.unit) ? {} : { incrs: WHOLE_STEPS };
  const axis = { stroke: tone("faint"), grid: { stroke: tone("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const series = facts.series.map((each) => ({
    label: each.name, stroke: tone(each.tone || "accent"), width: 1.75, points: { show: isSparse, size: 6 }, spanGaps: true,
    fill: each.fill === false ? undefined : `color-mix(in srgb, ${tone(each.tone || "accent")} 14%, transparent)`,
    value: (plot, value) => written(facts.unit, value),
  }));
  return new window.uPlot({
    width: Math.max(200, node.clientWidth), height: HEIGHT, series: [{ label: "At", value: (plot, at) => (at ? EXACT.format(new Date(at * 1000)) : "–") }, ...series],
    axes: [{ ...axis, size: 28, values: (plot, instants) => instants.map(told) }, { ...axis, ...steps, size: 58, values: (plot, values) => values.map((value) => written(facts.unit, value)) }],
    scales: { y: { range: (plot, least, most) => [Math.min(0, least ?? 0), Math.max(most ?? 0, facts.least ?? 1e-9) * 1.08] } },
    cursor: { y: false, points: { size: 7 } }, legend: { live: true }, hooks: { ready: [tellLatest], setCursor: [tellLatest] },
  }, data, node);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts(document, { anew: true }));
let resizing = null;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => drawCharts(document, { anew: true }), 150);
});
