// The chart of usage: bars that stand on each other, one colour for each name. The table beside it says the same.
"use strict";
(() => {
  const HEIGHT = 240;
  const language = document.documentElement.lang || undefined;
  const short = new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 });
  // Grouped as the table is.
  const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
  const write = (value) => exact.format(value).replaceAll(",", "\u202f");

  function drawChart(figure, shown) {
    const place = figure.querySelector(".chart");
    const legend = figure.querySelector(".legend");
    const stacks = stack(shown.series.map((series) => series.values));
    const positions = shown.labels.map((_, index) => index);
    const colors = shown.series.map((_, index) => page.color(`--series-${index + 1}`));
    const values = writeLegend(legend, shown);
    place.replaceChildren();
    return new uPlot({
      width: place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { setScale: false } },
      scales: { x: { time: false, range: [-0.5, shown.labels.length - 0.5] }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] } },
      axes: axes(shown.labels, page.color("--soft"), page.color("--line")),
      series: [{}, ...stacks.map((_, index) => bars(colors[index])).reverse()],
      hooks: { setCursor: [(chart) => values(chart.cursor.idx)] },
    }, [positions, ...stacks.slice().reverse()], place);
  }

  // Each series with those before it under it.
  function stack(series) {
    const below = new Array(series[0]?.length ?? 0).fill(0);
    return series.map((values) => values.map((value, index) => (below[index] += value)));
  }

  function bars(color) {
    return { fill: color, stroke: color, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.72, 48] }) };
  }

  function axes(labels, ink, line) {
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    return [
      { stroke: ink, font, grid: { show: false }, ticks: { show: false }, space: 56, size: 28, incrs: [1, 2, 3, 4, 6, 7, 14, 28, 56], values: (_, at) => at.map((index) => labels[index] ?? "") },
      { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false }, size: 52, values: (_, at) => at.map((value) => short.format(value)) },
    ];
  }

  // Names with their sums; returns what shows the values of one position instead.
  function writeLegend(legend, shown) {
    const sums = shown.series.map((series) => series.values.reduce((sum, value) => sum + value, 0));
    const period = document.createElement("li");
    period.className = "period";
    const amounts = shown.series.map(() => document.createElement("b"));
    legend.replaceChildren(...shown.series.map((series, index) => {
      const entry = document.createElement("li");
      entry.className = `series-${index + 1}`;
      entry.append(`${series.name} `, amounts[index]);
      return entry;
    }), period);
    const show = (at) => {
      const values = at == null ? sums : shown.series.map((series) => series.values[at]);
      amounts.forEach((amount, index) => { amount.textContent = `${write(values[index])}${shown.unit && `\u00a0${shown.unit}`}`; });
      period.textContent = at == null ? "" : shown.labels[at];
    };
    show(null);
    return show;
  }

  async function load(figure, measure) {
    const address = new URL(figure.dataset.href, location.href);
    address.searchParams.set("measure", measure);
    const answer = await fetch(address, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.statusText);
    return answer.json();
  }

  function enableChart(figure) {
    const measure = document.getElementById("measure");
    const caption = figure.querySelector("figcaption");
    let chart = null, shown = null;
    const redraw = () => { chart?.destroy(); chart = shown && drawChart(figure, shown); };
    const show = async () => {
      try {
        shown = await load(figure, measure.value);
        caption.textContent = shown.summary;
        redraw();
      } catch {
        caption.textContent = figure.dataset.failed;
      }
    };
    figure.hidden = false;
    measure.addEventListener("change", show);
    document.addEventListener("themechange", redraw);
    new ResizeObserver(() => chart?.setSize({ width: figure.querySelector(".chart").clientWidth, height: HEIGHT })).observe(figure);
    show();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const figure = document.getElementById("usage-chart");
    if (figure) enableChart(figure);
  });
})();
