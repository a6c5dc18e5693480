"use strict";
// One uPlot per figure. Texts reach the page through textContent or the canvas only, never as markup.
const thresherCharts = (() => {
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = place => style(`--series-${place % 8 + 1}`);
  const group = value => value.toLocaleString("en", {maximumFractionDigits: 0});
  const write = {
    count: group,
    percent: value => `${(+value.toFixed(2)).toLocaleString("en")} %`,
    bytes: value => {
      const [scale, unit] = [[1e9, "GB"], [1e6, "MB"], [1e3, "KB"]].find(([least]) => Math.abs(value) >= least) || [1, "B"];
      return `${+(value / scale).toFixed(1)} ${unit}`;
    },
    number: value => {
      const size = Math.abs(value);
      return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : `${+value.toPrecision(4)}`;
    },
  };
  const add = (parent, tag, text, className) => {
    const made = parent.appendChild(document.createElement(tag));
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  // The plotted columns: x, then each series, then the low and high edge of each band.
  function columns(figure) {
    const data = [figure.across, ...figure.series.map(one => one.values)];
    const bands = [];
    figure.series.forEach((one, place) => {
      if (!one.low.length) return;
      bands.push({series: [data.length + 1, data.length], fill: () => colour(place) + "30"});
      data.push(one.low, one.high);
    });
    return {data, bands};
  }

  function seriesOf(figure, place) {
    const paint = () => colour(place);
    const few = figure.across.length <= 40;
    if (figure.kind === "scatter")
      return {paths: () => null, stroke: paint, points: {show: true, size: 13, width: 2, stroke: () => style("--card"), fill: paint}};
    if (figure.kind === "bars")
      return {stroke: paint, fill: paint, width: 0, points: {show: false}, paths: uPlot.paths.bars({size: [0.72, 42], radius: [0.15, 0]})};
    return {stroke: paint, width: 2, spanGaps: true, points: {show: few, size: 6, stroke: paint, fill: paint}};
  }

  function range(axis, pad) {
    return (plot, low, high) => {
      if (low === null || high === null) return [0, 1];
      if (low === high) [low, high] = [low - (Math.abs(low) * 0.05 || 1), high + (Math.abs(high) * 0.05 || 1)];
      const room = (high - low) * pad;
      return [axis.low ?? low - room, axis.high ?? high + room];
    };
  }

  function axes(figure, width) {
    const common = {stroke: () => style("--muted"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
      grid: {stroke: () => style("--grid"), width: 1}, ticks: {stroke: () => style("--grid"), width: 1, size: 4}};
    const longest = Math.max(0, ...figure.names.map(name => name.length));
    const named = figure.kind === "bars" && figure.names.length <= 28 && longest <= 26 && width > 480;
    const across = figure.kind === "bars" ? {
      ...common, grid: {show: false}, incrs: named ? [1] : [1, 2, 5, 10, 20, 50], space: named ? 1 : 30,
      values: (plot, ticks) => ticks.map(tick => figure.names[tick - 1] === undefined || !Number.isInteger(tick) ? "" : named ? figure.names[tick - 1] : `${tick}`),
      rotate: named ? -50 : 0, size: named ? 28 + Math.min(longest, 26) * 5.2 : 34,
      label: named ? undefined : figure.x.label,
    } : {...common, label: figure.x.label, values: (plot, ticks) => ticks.map(write[figure.x.format]), space: 64, size: 34};
    const up = {...common, size: 66, values: (plot, ticks) => ticks.map(ticked(figure.y.format, ticks))};
    return [{labelSize: 18, labelGap: 0, ...across}, up];
  }

  function draw(host, figure, sync) {
    const {data, bands} = columns(figure);
    const bars = figure.kind === "bars";
    const hidden = data.slice(1 + figure.series.length).map(() => ({stroke: "transparent", width: 0, points: {show: false}}));
    const tip = add(host, "div", undefined, "tip");
    tip.setAttribute("role", "status");
    const height = () => Math.round(Math.min(300, Math.max(220, host.clientWidth * 0.5))) + (bars && host.clientWidth > 480 ? 60 : 0);
    const plot = new uPlot({
      width: host.clientWidth, height: height(),
      legend: {show: false}, bands, axes: axes(figure, host.clientWidth),
      scales: {
        x: {time: false, range: bars ? [0.4, figure.across.length + 0.6] : range(figure.x, figure.kind === "scatter" ? 0.08 : 0)},
        y: {range: range(figure.y, 0.08)},
      },
      series: [{}, ...figure.series.map((one, place) => seriesOf(figure, place)), ...hidden],
      cursor: {
        y: false, drag: {x: figure.kind === "lines", y: false}, points: {size: 9},
        sync: sync && figure.kind === "lines" ? {key: sync} : undefined,
      },
      hooks: {setCursor: [self => hover(self, figure, tip)]},
    }, data, host);
    keys(host, plot, figure, tip);
    new ResizeObserver(() => {
      if (Math.abs(plot.width - host.clientWidth) > 1 && host.clientWidth > 0) plot.setSize({width: host.clientWidth, height: height()});
    }).observe(host);
    return plot;
  }

  // One notation for all ticks of an axis: 7.5e-4 beside 1e-3, never beside 0.001.
  function ticked(format, ticks) {
    const tiny = format === "number" && Math.max(...ticks.map(Math.abs)) < 0.01;
    return tick => tiny && tick !== 0 ? Number(tick.toPrecision(4)).toExponential() : write[format](tick);
  }

  // Which x is meant: the cursor's own for lines and bars, the nearest dot for a scatter.
  function nearest(plot, figure) {
    if (figure.kind !== "scatter") return plot.cursor.idx;
    let best = null, least = 40;
    figure.across.forEach((x, index) => figure.series.forEach(one => {
      if (one.values[index] === null) return;
      const far = Math.hypot(plot.valToPos(x, "x") - plot.cursor.left, plot.valToPos(one.values[index], "y") - plot.cursor.top);
      if (far < least) [best, least] = [index, far];
    }));
    return best;
  }

  function hover(plot, figure, tip) {
    const index = plot.cursor.left < 0 ? null : nearest(plot, figure);
    tip.hidden = index === null || index === undefined;
    if (tip.hidden) return;
    tip.replaceChildren();
    const at = write[figure.x.format](figure.across[index]);
    add(tip, "p", figure.names[index] ?? `${figure.x.label} ${at}`, "head");
    if (figure.kind === "scatter") add(tip, "p", `${figure.x.label}: ${at}`);
    figure.series.forEach((one, place) => {
      const value = one.values[index];
      if (value === null || value === undefined || !plot.series[place + 1].show) return;
      const line = add(tip, "p");
      add(line, "i", "", "key").style.background = colour(place);
      const label = figure.kind === "scatter" ? `${one.label}, ${figure.y.label}` : one.label;
      const band = one.low.length ? ` (${write[figure.y.format](one.low[index])} to ${write[figure.y.format](one.high[index])})` : "";
      line.append(`${label}: ${write[figure.y.format](value)}${band}`);
    });
    const left = plot.valToPos(figure.across[index], "x") + plot.over.offsetLeft;
    const most = plot.width - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(0, left + 14 > most ? Math.min(left - tip.offsetWidth - 14, most) : left + 14)}px`;
    tip.style.top = `${plot.over.offsetTop + 6}px`;
  }

  function keys(host, plot, figure, tip) {
    let index = -1;
    host.addEventListener("keydown", event => {
      const last = figure.across.length - 1;
      const next = {ArrowRight: index + 1, ArrowLeft: index < 0 ? last : index - 1, Home: 0, End: last}[event.key];
      if (event.key === "Escape") tip.hidden = true;
      if (next === undefined) return;
      event.preventDefault();
      index = Math.min(Math.max(next, 0), last);
      const value = figure.series.map(one => one.values[index]).find(one => one !== null && one !== undefined);
      plot.setCursor({left: plot.valToPos(figure.across[index], "x"), top: plot.valToPos(value ?? 0, "y")});
    });
    host.addEventListener("blur", () => plot.setCursor({left: -10, top: -10}));
  }

  return {draw, add, colour};
})();
