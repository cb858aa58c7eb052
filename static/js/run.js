// The curves of a run. They grow while it works; colours come from the page's tokens.
import { axis as axisOf, legendItem, token, WHOLE } from "./plot.js";

const POLL = 2500;
const box = document.getElementById("charts");
const columns = {};
let after = 0;

const CHARTS = {
  rewards: {
    lines: [
      { of: "reward_desirable", name: "liked", colour: "--up" },
      { of: "reward_undesirable", name: "disliked", colour: "--down" },
    ],
    healthy: [0, Infinity],
  },
  kl: {
    lines: [{ of: "kl_unclamped", name: "KL", colour: "--accent" }],
    healthy: [-2, Infinity],
  },
  loss: { lines: [{ of: "loss", name: "loss", colour: "--accent" }] },
  margin: { lines: [{ of: "margin", name: "margin", colour: "--accent" }], healthy: [0, Infinity] },
};

const number = (value) => (value == null ? "–" : value.toFixed(2).replace("-", "−"));

class Chart {
  constructor(figure) {
    this.spec = CHARTS[figure.dataset.chart];
    this.place = figure.querySelector(".plot");
    this.legend = figure.querySelector(".legend");
    this.cursor = null;
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
  }

  size() {
    return { width: this.place.clientWidth, height: this.place.clientHeight };
  }

  data() {
    return [columns.steps ?? [], ...this.spec.lines.map((line) => columns[line.of] ?? [])];
  }

  draw() {
    if (this.plot) this.plot.setData(this.data());
    else this.build();
    this.showValues();
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    if (columns.steps?.length) this.draw();
  }

  build() {
    const axis = axisOf();
    const band = token("--accent-soft");
    this.plot = new uPlot(
      {
        ...this.size(),
        padding: [8, 8, 0, 0],
        cursor: { sync: { key: "run" }, drag: { x: false, y: false }, points: { size: 7 } },
        legend: { show: false },
        scales: { x: { time: false }, y: { range: (plot, low, high) => room(low, high, this.spec) } },
        axes: [
          { ...axis, size: 26, grid: { show: false }, incrs: WHOLE },
          { ...axis, size: 44 },
        ],
        series: [
          {},
          ...this.spec.lines.map((line) => ({
            stroke: token(line.colour),
            width: 2,
            points: { show: columns.steps.length < 3 },
            spanGaps: true,
          })),
        ],
        hooks: {
          drawClear: [(plot) => shade(plot, this.spec.healthy, band)],
          setCursor: [(plot) => this.showValues(plot.cursor.idx)],
        },
      },
      this.data(),
      this.place,
    );
  }

  showValues(index = null) {
    const steps = columns.steps ?? [];
    const at = index ?? steps.length - 1;
    const items = this.spec.lines.map((line) =>
      legendItem(line.name, number(columns[line.of]?.[at]), line.colour.slice(2)),
    );
    const step = document.createElement("li");
    step.textContent = steps.length ? `step ${steps[at]}` : "";
    this.legend.replaceChildren(...items, step);
  }
}

function room(low, high, { healthy }) {
  if (low == null || high == null) return [0, 1];
  // the line between healthy and not is always in sight where it is near
  const edge = healthy?.[0];
  const least = edge != null && Number.isFinite(edge) ? Math.min(low, edge) : low;
  const most = edge != null && Number.isFinite(edge) ? Math.max(high, edge) : high;
  const pad = Math.max((most - least) * 0.08, 0.02);
  return [least - pad, most + pad];
}

function shade(plot, healthy, colour) {
  if (!healthy) return;
  const { ctx, bbox } = plot;
  const at = (value) =>
    Math.min(Math.max(plot.valToPos(value, "y", true), bbox.top), bbox.top + bbox.height);
  const [low, high] = healthy;
  const top = Number.isFinite(high) ? at(high) : bbox.top;
  ctx.save();
  ctx.fillStyle = colour;
  ctx.fillRect(bbox.left, top, bbox.width, at(low) - top);
  ctx.restore();
}

const charts = [...box.querySelectorAll("[data-chart]")].map((figure) => new Chart(figure));

function take(data) {
  const margin = data.reward_desirable.map((liked, index) => {
    const disliked = data.reward_undesirable[index];
    return liked == null || disliked == null ? null : liked - disliked;
  });
  const { active: _active, after: until, total, ...fresh } = { ...data, margin };
  if (total > data.steps.length) {
    const note = document.getElementById("thinned");
    note.textContent = `${data.steps.length} of ${total} steps are drawn: the lowest and the highest of neighbouring ones.`;
    note.hidden = false;
  }
  for (const [name, values] of Object.entries(fresh)) {
    columns[name] = [...(columns[name] ?? []), ...values];
  }
  after = until;
}

async function poll() {
  let active = "active" in box.dataset;
  try {
    const response = await fetch(`${box.dataset.metrics}?after=${after}`, { redirect: "error" });
    if (response.ok) {
      const data = await response.json();
      active = data.active;
      if (data.steps.length) take(data);
    }
  } catch {
    // the next poll may get through
  }
  const any = Boolean(columns.steps?.length);
  document.getElementById("no-curves").hidden = any;
  box.hidden = !any;
  if (any) for (const chart of charts) chart.draw();
  if (active) setTimeout(poll, POLL);
}

document.addEventListener("theme", () => charts.forEach((chart) => chart.rebuild()));
addEventListener("load", poll);
