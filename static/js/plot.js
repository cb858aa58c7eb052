// What all plots share: colours of the page's tokens and the look of the axes.

// of the lines of a plot with several versions or runs: the newest is solid
export const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [4, 4]];

// of an axis of steps: no halves between them
export const WHOLE = [1, 2, 5].flatMap((digit) => [...Array(7).keys()].map((power) => digit * 10 ** power)).sort((a, b) => a - b);

export function token(name, box = document.body) {
  // a canvas can't read light-dark(): ask for the colour as the page computes it
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  box.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

export function axis() {
  return {
    stroke: token("--ink-3"),
    grid: { stroke: token("--line"), width: 1 },
    ticks: { show: false },
    font: `11px ${getComputedStyle(document.body).fontFamily}`,
  };
}

export function legendItem(name, value, swatchClass) {
  const item = document.createElement("li");
  const swatch = document.createElement("i");
  swatch.className = swatchClass;
  const figure = document.createElement("b");
  figure.textContent = value;
  item.append(swatch, `${name} `, figure);
  return item;
}
