"use strict";
// One uPlot per figure. Texts reach the page through textContent or the canvas only, never as markup.
const thresherCharts = (() => {
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const numberOf = (figure, place) => figure.series[place].colour ?? place;
  const colour = place => style(`--series-${place % 8 + 1}`);
  const paintOf = (figure, place) => figure.series[place].style === "ghost" ? style("--ghost") : colour(numberOf(figure, place));
  const group = value => value.toLocaleString("en", {maximumFractionDigits: 0});
  const write = {
    count: value => value >= 1e6 ? `${+(value / 1e6).toPrecision(4)} M` : group(value),
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
  const barred = figure => figure.kind === "bars" || figure.kind === "histogram";

  // The plotted columns: x, then each series, then the low and high edge of each band.
  function columns(figure) {
    const data = [figure.across, ...figure.series.map(one => one.values)];
    const bands = [];
    figure.series.forEach((one, place) => {
      if (!one.low.length) return;
      const joined = figure.kind !== "scatter" || one.style === "linked";
      bands.push({series: [data.length + 1, data.length], fill: () => joined ? paintOf(figure, place) + "30" : "transparent"});
      data.push(one.low, one.high);
    });
    return {data, bands};
  }

  function seriesOf(figure, place) {
    const one = figure.series[place], paint = () => paintOf(figure, place);
    const few = figure.across.length <= 40;
    const dots = {show: true, size: 12, width: 2, stroke: () => style("--card"), fill: paint};
    if (one.style === "dashed") return {stroke: paint, width: 2, dash: [6, 5], spanGaps: true, points: {show: false}};
    if (one.style === "linked") return {stroke: paint, width: 2, spanGaps: true, points: {...dots, size: few ? 10 : 6, width: few ? 2 : 0}};
    if (one.style === "dots" || figure.kind === "scatter") return {paths: () => null, stroke: paint, points: dots};
    if (barred(figure)) {
      const size = figure.kind === "bars" ? [one.style === "ghost" ? 0.8 : figure.series[0].style === "ghost" ? 0.56 : 0.72, 42] : [1, Infinity];
      return {stroke: paint, fill: paint, width: 0, points: {show: false}, paths: uPlot.paths.bars({size, radius: figure.kind === "bars" ? [0.12, 0] : 0})};
    }
    return {stroke: paint, width: 2, spanGaps: true, points: {show: few, size: 6, stroke: paint, fill: paint}};
  }

  // The next 1, 2 or 5 times a power of ten, below (Math.floor) or above (Math.ceil).
  function even(value, round) {
    const power = 10 ** Math.floor(Math.log10(value)), steps = [1, 2, 5, 10];
    const step = round === Math.floor ? steps.findLast(one => one * power <= value * (1 + 1e-9)) : steps.find(one => one * power >= value * (1 - 1e-9));
    return (step ?? 1) * power;
  }

  function range(axis, pad) {
    return (plot, low, high) => {
      if (low === null || high === null) return axis.log ? [1, 10] : [0, 1];
      if (axis.log) return [even(low / 1.05, Math.floor), even(high * 1.05, Math.ceil)];
      if (low === high) [low, high] = [low - (Math.abs(low) * 0.05 || 1), high + (Math.abs(high) * 0.05 || 1)];
      const room = (high - low) * pad, ends = axis.format === "percent" ? [-2, 102] : [-Infinity, Infinity];
      return [axis.low ?? Math.max(low - room, Math.min(low, ends[0])), axis.high ?? Math.min(high + room, Math.max(high, ends[1]))];
    };
  }

  function axes(figure, width) {
    const common = {stroke: () => style("--muted"), font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
      grid: {stroke: () => style("--grid"), width: 1}, ticks: {stroke: () => style("--grid"), width: 1, size: 4}};
    const longest = Math.max(0, ...figure.names.map(name => name.length));
    const fits = longest * 6.8 + 8 < (width - 70) / figure.names.length;
    const named = figure.kind === "bars" && (fits || (figure.names.length <= 28 && longest <= 26 && width > 480));
    const across = figure.kind === "bars" ? {
      ...common, grid: {show: false}, incrs: named ? [1] : [1, 2, 5, 10, 20, 50], space: named ? 1 : 30,
      values: (plot, ticks) => ticks.map(tick => figure.names[tick - 1] === undefined || !Number.isInteger(tick) ? "" : named ? figure.names[tick - 1] : `${tick}`),
      rotate: named && !fits ? -50 : 0, size: named && !fits ? 28 + Math.min(longest, 26) * 5.2 : 34,
      label: named ? undefined : figure.x.label,
    } : {...common, label: figure.x.label, values: (plot, ticks) => ticks.map(ticked(figure.x.format, ticks, figure.x.log)), space: 64, size: 34};
    const up = {...common, size: 66, values: (plot, ticks) => ticks.map(ticked(figure.y.format, ticks, figure.y.log))};
    return [{labelSize: 18, labelGap: 0, ...across}, up];
  }

  function draw(host, figure, sync) {
    const {data, bands} = columns(figure);
    const bars = figure.kind === "bars";
    const hidden = data.slice(1 + figure.series.length).map(() => ({stroke: "transparent", width: 0, spanGaps: true, points: {show: false}}));
    const tip = add(host, "div", undefined, "tip");
    tip.setAttribute("role", "status");
    const height = () => Math.round(Math.min(300, Math.max(220, host.clientWidth * 0.5))) + (bars && host.clientWidth > 480 && figure.names.length > 4 ? 60 : 0);
    const reach = figure.kind === "histogram" && figure.across.length > 1 ? (figure.across[1] - figure.across[0]) / 2 : 0;
    const state = {figure, data, marks: figure.marks, clock: null, place: null};
    const across = bars ? [0.4, figure.across.length + 0.6]
      : reach ? [figure.across[0] - reach, figure.across.at(-1) + reach]
      : range(figure.x, figure.kind === "scatter" ? 0.08 : 0);
    const plot = new uPlot({
      width: host.clientWidth, height: height(),
      legend: {show: false}, bands, axes: axes(figure, host.clientWidth),
      scales: {
        x: {time: false, range: across, distr: figure.x.log ? 3 : 1},
        y: {range: range(figure.y, 0.08), distr: figure.y.log ? 3 : 1},
      },
      series: [{}, ...figure.series.map((one, place) => seriesOf(figure, place)), ...hidden],
      cursor: {
        y: false, drag: {x: figure.kind === "lines" && !figure.x.log, y: false}, points: {size: 9},
        sync: sync && figure.kind === "lines" && figure.x.label === "optimizer step" ? {key: sync} : undefined,
      },
      hooks: {setCursor: [self => hover(self, state, tip)], draw: [self => overlay(self, state)]},
    }, data, host);
    keys(host, plot, figure, tip);
    const watch = new ResizeObserver(() => {
      if (Math.abs(plot.width - host.clientWidth) > 1 && host.clientWidth > 0) plot.setSize({width: host.clientWidth, height: height()});
    });
    watch.observe(host);
    return {plot, figure, move: (stop, index) => move(plot, state, stop, index), end: () => { watch.disconnect(); plot.destroy(); host.replaceChildren(); }};
  }

  // The figure at one point of the trail.
  function move(plot, state, stop, index) {
    const figure = state.figure, frame = figure.frames[index];
    state.clock = figure.x.label === "optimizer step" ? stop.step : null;
    if (frame) {
      state.place = frame.place;
      if (frame.marks.length) state.marks = frame.marks;
      if (frame.values.some(values => values)) {
        state.data = state.data.map((column, at) => frame.values[at - 1] ?? column);
        plot.setData(state.data, true);
        return;
      }
    }
    if (frame || state.clock !== null) plot.redraw(false, false);
  }

  // Lines of thresholds, the point of the trail, and the whiskers of seeds, over the plot.
  function overlay(plot, state) {
    const {ctx, bbox} = plot, figure = state.figure, ratio = devicePixelRatio;
    const upright = (at, paint, dash) => {
      const x = plot.valToPos(at, "x", true);
      if (!(x >= bbox.left - 1 && x <= bbox.left + bbox.width + 1)) return;
      Object.assign(ctx, {strokeStyle: paint, lineWidth: 1.5 * ratio});
      ctx.setLineDash(dash.map(length => length * ratio));
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
    };
    ctx.save();
    state.marks.forEach(at => upright(at, style("--mark"), [5, 4]));
    if (state.clock !== null) upright(state.clock, style("--ink"), []);
    ctx.setLineDash([]);
    if (figure.kind === "scatter") figure.series.forEach((one, place) => {
      if (!one.low.length || !plot.series[place + 1].show) return;
      Object.assign(ctx, {strokeStyle: paintOf(figure, place), lineWidth: 2 * ratio});
      figure.across.forEach((at, index) => {
        if (one.low[index] === null || one.low[index] === one.high[index]) return;
        const x = plot.valToPos(at, "x", true);
        ctx.beginPath(); ctx.moveTo(x, plot.valToPos(one.low[index], "y", true)); ctx.lineTo(x, plot.valToPos(one.high[index], "y", true)); ctx.stroke();
      });
    });
    const value = state.place === null ? null : figure.series[0].values[state.place];
    if (value !== null && value !== undefined) {
      Object.assign(ctx, {strokeStyle: style("--ink"), lineWidth: 2.5 * ratio});
      ctx.beginPath();
      ctx.arc(plot.valToPos(figure.across[state.place], "x", true), plot.valToPos(value, "y", true), 9 * ratio, 0, 7);
      ctx.stroke();
    }
    ctx.restore();
  }

  // One notation for all ticks of an axis: 7.5e-4 beside 1e-3, never beside 0.001. Log axes leave some ticks out.
  function ticked(format, ticks, log) {
    if (log && format === "number") return tick => tick === null || tick === undefined ? "" : tick < 0.01 ? tick.toExponential(0) : write.number(tick);
    const tiny = format === "number" && Math.max(...ticks.map(tick => Math.abs(tick ?? 0))) < 0.01;
    return tick => tick === null || tick === undefined ? "" : tiny && tick !== 0 ? Number(tick.toPrecision(4)).toExponential() : write[format](tick);
  }

  // Which x is meant: the cursor's own for lines and bars, the nearest dot for a scatter.
  function nearest(plot, figure) {
    if (figure.kind !== "scatter") return plot.cursor.idx;
    let best = null, least = 40;
    figure.across.forEach((x, index) => figure.series.forEach(one => {
      if (one.values[index] === null || one.style === "dashed") return;
      const far = Math.hypot(plot.valToPos(x, "x") - plot.cursor.left, plot.valToPos(one.values[index], "y") - plot.cursor.top);
      if (far < least) [best, least] = [index, far];
    }));
    return best;
  }

  // Names of dots that lie under or beside dot `index`.
  function covered(plot, figure, index) {
    const spots = figure.across.map((x, at) => {
      const one = figure.series.find(series => series.style !== "dashed" && series.values[at] !== null);
      return one ? [plot.valToPos(x, "x"), plot.valToPos(one.values[at], "y")] : null;
    });
    const mine = spots[index];
    return figure.names.filter((name, at) => at !== index && mine && spots[at] && Math.hypot(spots[at][0] - mine[0], spots[at][1] - mine[1]) < 6).slice(0, 6);
  }

  function hover(plot, state, tip) {
    const figure = state.figure;
    const index = plot.cursor.left < 0 ? null : nearest(plot, figure);
    tip.hidden = index === null || index === undefined;
    if (tip.hidden) return;
    tip.replaceChildren();
    const at = write[figure.x.format](figure.across[index]);
    add(tip, "p", figure.names[index] ?? `${figure.x.label} ${at}`, "head");
    if (figure.kind === "scatter") add(tip, "p", `${figure.x.label}: ${at}`);
    figure.series.forEach((one, place) => {
      const value = state.data[place + 1][index];
      if (value === null || value === undefined || !plot.series[place + 1].show) return;
      if (figure.kind === "scatter" && one.style === "dashed") return;
      const line = add(tip, "p");
      add(line, "i", "", "key").style.background = paintOf(figure, place);
      const label = figure.kind === "scatter" && one.label !== figure.y.label ? `${one.label}, ${figure.y.label}` : one.label;
      const wide = one.low.length && one.low[index] !== null && one.low[index] !== one.high[index];
      const band = wide ? ` (${write[figure.y.format](one.low[index])} to ${write[figure.y.format](one.high[index])})` : "";
      line.append(`${label}: ${write[figure.y.format](value)}${band}`);
    });
    if (figure.kind === "scatter") {
      const beneath = covered(plot, figure, index);
      if (beneath.length) add(tip, "p", `at the same place: ${beneath.join(", ")}`);
    }
    const left = plot.valToPos(figure.across[index], "x") + plot.over.offsetLeft;
    const most = plot.width - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(0, left + 14 > most ? Math.min(left - tip.offsetWidth - 14, most) : left + 14)}px`;
    tip.style.top = `${plot.over.offsetTop + 6}px`;
  }

  function keys(host, plot, figure, tip) {
    let index = -1;
    host.onkeydown = event => {
      const last = figure.across.length - 1;
      const next = {ArrowRight: index + 1, ArrowLeft: index < 0 ? last : index - 1, Home: 0, End: last}[event.key];
      if (event.key === "Escape") tip.hidden = true;
      if (next === undefined) return;
      event.preventDefault();
      index = Math.min(Math.max(next, 0), last);
      const value = figure.series.map(one => one.values[index]).find(one => one !== null && one !== undefined);
      plot.setCursor({left: plot.valToPos(figure.across[index], "x"), top: plot.valToPos(value ?? 0, "y")});
    };
    host.onblur = () => plot.setCursor({left: -10, top: -10});
  }

  return {draw, add, numberOf};
})();
