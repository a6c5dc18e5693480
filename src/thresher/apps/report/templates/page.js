"use strict";
// Draws every figure, builds legends and choices, moves the plots along the trail, switches the theme.
const thresherPage = (() => {
  const {draw, add, numberOf} = thresherCharts;
  let charts = [];

  function legend(host, chart) {
    host.replaceChildren();
    const {figure, plot} = chart;
    if (figure.series.length < 2) return;
    figure.series.forEach((one, place) => {
      if (one.values.every(value => value === null)) return;
      const entry = add(host, "button");
      entry.type = "button";
      entry.setAttribute("aria-pressed", "true");
      const paint = one.style === "ghost" ? "var(--ghost)" : `var(--series-${numberOf(figure, place) % 8 + 1})`;
      add(entry, "i", "", "key").style.background = paint;
      entry.append(one.label);
      entry.addEventListener("click", () => {
        const show = !plot.series[place + 1].show;
        plot.setSeries(place + 1, {show});
        entry.setAttribute("aria-pressed", String(show));
      });
    });
  }

  function open(host, figures) {
    const whole = figures[host.dataset.figure], section = host.closest(".run");
    const key = section ? section.id : null;
    const legends = document.querySelector(`[data-legend="${host.dataset.figure}"]`);
    const slot = {section: key, chart: draw(host, whole, key), at: null};
    slot.move = (stop, index) => { slot.at = [stop, index]; slot.chart.move(stop, index); };
    legend(legends, slot.chart);
    const box = host.closest(".plot"), tables = [...box.querySelectorAll("[data-variant]")];
    const choose = place => {
      tables.forEach((one, number) => { one.hidden = number !== place; });
      const caption = box.querySelector("[data-caption]");
      if (caption && whole.variants.length) caption.textContent = tables[place].dataset.caption;
    };
    if (whole.variants.length) {
      const pick = box.querySelector("select");
      pick.hidden = false;
      choose(0);
      pick.addEventListener("change", () => {
        slot.chart.end();
        slot.chart = draw(host, whole.variants[pick.selectedIndex][1], key);
        legend(legends, slot.chart);
        choose(pick.selectedIndex);
        if (slot.at) slot.chart.move(...slot.at);
      });
    }
    charts.push(slot);
  }

  function explore(panel, stops) {
    const slider = panel.querySelector("input"), command = panel.querySelector("code");
    const show = () => {
      const index = Number(slider.value), stop = stops[index];
      slider.setAttribute("aria-valuetext", stop.spoken);
      panel.querySelectorAll("[data-value]").forEach(place => { place.textContent = stop.texts[place.dataset.value]; });
      if (command) command.textContent = stop.command;
      charts.filter(slot => slot.section === panel.dataset.explorer).forEach(slot => slot.move(stop, index));
    };
    slider.disabled = false;
    slider.addEventListener("input", show);
    show();
  }

  async function copy(button, text) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = add(document.body, "textarea");
      area.value = text;
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const before = button.dataset.label ??= button.textContent;
    button.textContent = done ? "Copied" : "Copy by hand";
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  // A table as Markdown; what would break out of a cell is escaped.
  function markdown(table) {
    const line = row => `| ${[...row.cells].map(cell => cell.textContent.trim().replace(/[\\|`<>]/g, "\\$&").replace(/\s+/g, " ")).join(" | ")} |`;
    const [head, ...rows] = [...table.rows];
    return [line(head), `|${"---|".repeat(head.cells.length)}`, ...rows.map(line)].join("\n");
  }

  // Two runs side by side: the columns of the others and the rows that agree are hidden.
  function differ(box) {
    const [one, other] = box.querySelectorAll("select"), table = box.querySelector("table");
    const show = () => {
      const chosen = [Number(one.value), Number(other.value)];
      [...table.rows].forEach((row, number) => {
        const cells = [...row.cells].slice(1);
        cells.forEach((cell, place) => { cell.hidden = !chosen.includes(-1) && !chosen.includes(place); });
        const same = !chosen.includes(-1) && number > 0 && cells[chosen[0]].textContent === cells[chosen[1]].textContent;
        row.hidden = same;
      });
    };
    [one, other].forEach(pick => pick.addEventListener("change", show));
    box.querySelector(".pair").hidden = false;
  }

  function start() {
    charts = [];
    const figures = JSON.parse(document.getElementById("data").textContent);
    const trails = JSON.parse(document.getElementById("trails").textContent);
    document.querySelectorAll("[data-figure]").forEach(host => open(host, figures));
    document.querySelectorAll("[data-explorer]").forEach(panel => explore(panel, trails[panel.dataset.explorer]));
    document.querySelectorAll("[data-copy]").forEach(button => {
      button.hidden = false;
      const what = document.getElementById(button.dataset.copy);
      button.addEventListener("click", () => copy(button, what.tagName === "TABLE" ? markdown(what) : what.textContent));
    });
    document.querySelectorAll("[data-differ]").forEach(differ);
    document.documentElement.dataset.ready = "yes";
  }

  const repaint = () => charts.forEach(slot => slot.chart.plot.redraw(true, true));
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  let theme = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    button.textContent = `Theme: ${themes[theme]}`;
    if (theme) document.documentElement.dataset.theme = themes[theme];
    else delete document.documentElement.dataset.theme;
    repaint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  // Paper is white whatever the screen is.
  let before;
  window.addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    repaint();
  });
  window.addEventListener("afterprint", () => {
    if (before) document.documentElement.dataset.theme = before;
    else delete document.documentElement.dataset.theme;
    repaint();
  });

  start();
  return {start, stop: () => charts.forEach(slot => slot.chart.end())};
})();
