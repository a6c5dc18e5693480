"use strict";
// Draws every figure, builds the legends, and switches the theme.
(() => {
  const {draw, add} = thresherCharts;
  const figures = JSON.parse(document.getElementById("data").textContent);
  const plots = [];

  function legend(host, figure, plot) {
    if (figure.series.length < 2) return;
    figure.series.forEach((one, place) => {
      if (one.values.every(value => value === null)) return;
      const entry = add(host, "button");
      entry.type = "button";
      entry.setAttribute("aria-pressed", "true");
      add(entry, "i", "", "key").style.background = `var(--series-${place % 8 + 1})`;
      entry.append(one.label);
      entry.addEventListener("click", () => {
        const show = !plot.series[place + 1].show;
        plot.setSeries(place + 1, {show});
        entry.setAttribute("aria-pressed", String(show));
      });
    });
  }

  function open(host) {
    const figure = figures[host.dataset.figure];
    const section = host.closest(".run");
    const plot = draw(host, figure, section ? section.id : null);
    legend(document.querySelector(`[data-legend="${host.dataset.figure}"]`), figure, plot);
    plots.push(plot);
  }

  const repaint = () => plots.forEach(plot => plot.redraw(false, true));
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

  document.querySelectorAll("[data-figure]").forEach(open);
  document.documentElement.dataset.ready = "yes";
})();
