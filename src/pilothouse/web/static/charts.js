// Draws what [data-chart] says: {"unit", "at": [seconds], "series": [{"name", "values", "tone"}], "stacked"?, "limit"?}.
const HEIGHT = 150;
const drawn = new WeakMap();

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

function draw(node, facts) {
  const axis = { stroke: tone("faint"), grid: { stroke: tone("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const series = facts.series.map((each) => ({
    label: each.name, stroke: tone(each.tone || "accent"), width: 1.75, points: { show: false }, spanGaps: true,
    fill: each.fill === false ? undefined : `color-mix(in srgb, ${tone(each.tone || "accent")} 14%, transparent)`,
    value: (plot, value) => written(facts.unit, value),
  }));
  return new window.uPlot({
    width: Math.max(200, node.clientWidth), height: HEIGHT, series: [{ value: (plot, at) => (at ? new Date(at * 1000).toLocaleTimeString() : "–") }, ...series],
    axes: [axis, { ...axis, size: 58, values: (plot, values) => values.map((value) => written(facts.unit, value)) }],
    scales: { y: { range: (plot, least, most) => [Math.min(0, least ?? 0), Math.max(most ?? 0, facts.least ?? 1e-9) * 1.08] } },
    cursor: { y: false }, legend: { live: true },
  }, [facts.at, ...facts.series.map((each) => each.values)], node);
}

let resizing = null;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => drawCharts(document, { anew: true }), 150);
});
