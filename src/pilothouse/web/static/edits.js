// Shows, while arguments are edited, what differs from those that were asked for: textarea[data-compare=ID of the place].
const MOST_LINES = 400;

export function followEdits() {
  for (const field of document.querySelectorAll("textarea[data-compare]")) {
    const place = document.getElementById(field.dataset.compare);
    const { asked } = field.dataset;
    const told = () => tell(place, asked, field.value);
    field.addEventListener("input", told);
    told();
  }
}

function tell(place, asked, edited) {
  place.hidden = edited === asked;
  place.replaceChildren();
  if (place.hidden) return;
  try {
    JSON.parse(edited);
  } catch (error) {
    const line = document.createElement("p");
    line.className = "over";
    line.textContent = `Not JSON: ${error.message}`;
    place.append(line);
    return;
  }
  const list = document.createElement("pre");
  list.className = "changes";
  for (const [mark, text] of differences(asked.split("\n"), edited.split("\n"))) {
    const line = document.createElement("span");
    line.className = { "+": "added", "-": "removed" }[mark] || "same";
    line.textContent = `${mark} ${text}`;
    list.append(line, "\n");
  }
  place.append(list);
}

function differences(before, after) {
  if (before.length > MOST_LINES || after.length > MOST_LINES) return [...before.map((line) => ["-", line]), ...after.map((line) => ["+", line])];
  const kept = before.map(() => new Uint16Array(after.length + 1));
  kept.push(new Uint16Array(after.length + 1));
  for (let a = before.length - 1; a >= 0; a -= 1)
    for (let b = after.length - 1; b >= 0; b -= 1)
      kept[a][b] = before[a] === after[b] ? kept[a + 1][b + 1] + 1 : Math.max(kept[a + 1][b], kept[a][b + 1]);
  const lines = [];
  let [a, b] = [0, 0];
  while (a < before.length || b < after.length) {
    if (a < before.length && b < after.length && before[a] === after[b]) lines.push([" ", before[a++], b++]);
    else if (b >= after.length || (a < before.length && kept[a + 1][b] >= kept[a][b + 1])) lines.push(["-", before[a++]]);
    else lines.push(["+", after[b++]]);
  }
  return lines;
}
