// The plots of a project's first page. Days are UTC; a day without votes is empty.
import { axis, DASHES, legendItem, token } from "./plot.js";

const DAY = 86400;
const WEEK = 7;
const FEW = 32; // days, up to which each is marked with a point
const read = JSON.parse(document.getElementById("history-data")?.textContent ?? "null");
const second = (day) => Date.parse(`${day}T00:00:00Z`) / 1000;
const percent = (value) => (value == null ? "–" : `${Math.round(100 * value)} %`);

// one entry for each day from the first to the last of all rows
function days(rows) {
  const found = rows.map(([day]) => second(day)).sort((a, b) => a - b);
  if (!found.length) return [];
  const count = Math.round((found.at(-1) - found[0]) / DAY) + 1;
  return Array.from({ length: count }, (_, index) => found[0] + index * DAY);
}

function column(xs, rows, value) {
  const known = new Map(rows.map((row) => [second(row[0]), value(row)]));
  return xs.map((x) => known.get(x) ?? null);
}

function votesSpec() {
  const xs = days(read.votes);
  const bars = uPlot.paths.bars({ size: [0.7, 36] });
  const ups = column(xs, read.votes, (row) => row[1]);
  const downs = column(xs, read.votes, (row) => row[2]);
  return {
    data: [xs, xs.map((_, index) => (ups[index] ?? 0) + (downs[index] ?? 0)), ups],
    series: [
      // the bar of all votes stands behind that of the ups: what is seen of it are the downs
      { fill: token("--down"), width: 0, paths: bars, points: { show: false } },
      { fill: token("--up"), width: 0, paths: bars, points: { show: false } },
    ],
    range: (_, __, high) => [0, Math.max(1, high * 1.1)],
    values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString() : "")),
    legend: (index) => [
      legendItem("up", ups[index] ?? 0, "up"),
      legendItem("down", downs[index] ?? 0, "down"),
    ],
  };
}

// share of ups among the votes of the WEEK days up to each day: a single day has few votes
function weekly(xs, rows) {
  const ups = column(xs, rows, (row) => row[1]);
  const votes = column(xs, rows, (row) => row[2]);
  const last = xs.indexOf(second(rows.at(-1)[0]));
  return xs.map((_, index) => {
    if (index > last) return null;
    const week = (values) =>
      values.slice(Math.max(0, index - WEEK + 1), index + 1).reduce((sum, n) => sum + (n ?? 0), 0);
    return week(votes) ? week(ups) / week(votes) : null;
  });
}

function ratesSpec() {
  const names = Object.keys(read.rates);
  const xs = days(names.flatMap((name) => read.rates[name]));
  const newest = names.length - 1;
  const columns = names.map((name) => weekly(xs, read.rates[name]));
  return {
    data: [xs, ...columns],
    series: names.map((_, index) => ({
      stroke: token(index === newest ? "--accent" : "--ink-3"),
      width: index === newest ? 2 : 1.5,
      dash: DASHES[newest - index],
      points: { show: xs.length < FEW, size: 5 },
      spanGaps: true,
    })),
    range: () => [0, 1],
    values: (_, ticks) => ticks.map(percent),
    legend: (at) =>
      names.map((name, index) =>
        legendItem(name, percent(columns[index][at]), `dash-${newest - index}`),
      ),
    marks: read.releases,
  };
}

function agreementSpec() {
  const xs = days(read.agreement);
  const shares = column(xs, read.agreement, (row) => row[1] / row[2]);
  return {
    data: [xs, shares],
    series: [
      {
        stroke: token("--accent"),
        width: 2,
        points: { show: xs.length < FEW, size: 5 },
        spanGaps: true,
      },
    ],
    range: () => [0, 1],
    values: (_, ticks) => ticks.map(percent),
    legend: (index) => [legendItem("equal verdicts", percent(shares[index]), "accent")],
  };
}

const SPECS = { votes: votesSpec, rates: ratesSpec, agreement: agreementSpec };

function mark(plot, releases) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = token("--line-strong");
  ctx.setLineDash([4, 3]);
  for (const [moment] of releases) {
    const x = Math.round(plot.valToPos(moment, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.place = figure.querySelector(".plot");
    this.legend = figure.querySelector(".legend");
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
    this.build();
  }

  size() {
    return { width: this.place.clientWidth, height: this.place.clientHeight };
  }

  build() {
    this.plot?.destroy();
    const spec = SPECS[this.figure.dataset.plot]();
    const [xs] = spec.data;
    if (!xs.length) {
      const nothing = document.createElement("li");
      nothing.textContent = "No votes in these days.";
      this.legend.replaceChildren(nothing);
      return;
    }
    const look = axis();
    const showValues = (index) => {
      const at = index ?? xs.length - 1;
      const day = document.createElement("li");
      day.textContent = new Date(xs[at] * 1000).toLocaleDateString([], {
        timeZone: "UTC",
        day: "numeric",
        month: "short",
      });
      this.legend.replaceChildren(day, ...spec.legend(at));
    };
    this.plot = new uPlot(
      {
        ...this.size(),
        padding: [8, 8, 0, 0],
        cursor: { sync: { key: "history" }, drag: { x: false, y: false }, points: { size: 7 } },
        legend: { show: false },
        tzDate: (moment) => uPlot.tzDate(new Date(moment * 1000), "Etc/UTC"),
        scales: {
          x: { range: [xs[0] - DAY / 2, xs.at(-1) + DAY / 2] },
          y: { range: spec.range },
        },
        axes: [
          { ...look, size: 26, grid: { show: false }, space: 60, incrs: [1, 2, 7, 14, 28].map((n) => n * DAY), values: dayNames },
          { ...look, size: 48, values: spec.values },
        ],
        series: [{}, ...spec.series],
        hooks: {
          draw: spec.marks ? [(plot) => mark(plot, spec.marks)] : [],
          setCursor: [(plot) => showValues(plot.cursor.idx)],
        },
      },
      spec.data,
      this.place,
    );
    showValues(null);
  }
}

function dayNames(_, ticks) {
  const shown = { timeZone: "UTC", day: "numeric", month: "short" };
  return ticks.map((tick) => new Date(tick * 1000).toLocaleDateString([], shown));
}

const box = document.getElementById("history");
if (box && read) {
  addEventListener("load", () => {
    const charts = [...box.querySelectorAll("[data-plot]")].map((figure) => new Chart(figure));
    document.addEventListener("theme", () => charts.forEach((chart) => chart.build()));
  });
}
