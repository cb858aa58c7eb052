// The curves of several runs over each other, by step.
import { axis, DASHES, legendItem, token, WHOLE } from "./plot.js";

const box = document.getElementById("curves");
const runs = [...document.querySelectorAll("[data-curves]")].map(({ dataset }) => dataset);

async function columnsOf({ curves }) {
  try {
    const response = await fetch(`${curves}?after=0`, { redirect: "error" });
    return response.ok ? await response.json() : null;
  } catch {
    return null; // the tables are there without it
  }
}

function values(data, name) {
  if (!data) return [];
  if (name !== "margin") return data[name];
  return data.reward_desirable.map((up, index) => {
    const down = data.reward_undesirable[index];
    return up == null || down == null ? null : up - down;
  });
}

const written = (value) => (value == null ? "–" : value.toFixed(2).replace("-", "−"));

class Overlay {
  constructor(figure, loaded) {
    this.place = figure.querySelector(".plot");
    this.legend = figure.querySelector(".legend");
    this.steps = [...new Set(loaded.flatMap((data) => data?.steps ?? []))].sort((a, b) => a - b);
    this.columns = loaded.map((data) => {
      const column = values(data, figure.dataset.chart);
      const known = new Map((data?.steps ?? []).map((step, index) => [step, column[index]]));
      return this.steps.map((step) => known.get(step) ?? null);
    });
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
    this.build();
  }

  size() {
    return { width: this.place.clientWidth, height: this.place.clientHeight };
  }

  build() {
    this.plot?.destroy();
    const look = axis();
    const newest = runs.length - 1;
    this.plot = new uPlot(
      {
        ...this.size(),
        padding: [8, 8, 0, 0],
        cursor: { sync: { key: "runs" }, drag: { x: false, y: false }, points: { size: 7 } },
        legend: { show: false },
        scales: { x: { time: false } },
        axes: [
          { ...look, size: 26, grid: { show: false }, incrs: WHOLE },
          { ...look, size: 48 },
        ],
        series: [
          {},
          ...runs.map((_, index) => ({
            stroke: token(index === newest ? "--accent" : "--ink-3"),
            width: index === newest ? 2 : 1.5,
            dash: DASHES[newest - index],
            points: { show: false },
            spanGaps: true,
          })),
        ],
        hooks: { setCursor: [(plot) => this.showValues(plot.cursor.idx)] },
      },
      [this.steps, ...this.columns],
      this.place,
    );
    this.showValues(null);
  }

  showValues(index) {
    const newest = runs.length - 1;
    const items = runs.map((run, number) => {
      const column = this.columns[number];
      const last = column.findLast((value) => value != null);
      const value = index == null ? last : column[index];
      return legendItem(run.name, written(value), `dash-${newest - number}`);
    });
    const step = document.createElement("li");
    step.textContent = index == null ? "at the end" : `step ${this.steps[index]}`;
    this.legend.replaceChildren(...items, step);
  }
}

addEventListener("load", async () => {
  const loaded = await Promise.all(runs.map(columnsOf));
  if (!loaded.some((data) => data?.steps.length)) return;
  document.getElementById("no-curves").hidden = true;
  box.hidden = false;
  const overlays = [...box.querySelectorAll("[data-chart]")].map(
    (figure) => new Overlay(figure, loaded),
  );
  document.addEventListener("theme", () => overlays.forEach((overlay) => overlay.build()));
});
