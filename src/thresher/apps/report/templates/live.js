"use strict";
// While a run goes on: ask this machine every two seconds whether it has news, and put the new page in place of the old.
(() => {
  const note = document.getElementById("live");
  let seen = document.documentElement.dataset.stamp;

  function kept() {
    const every = query => [...document.querySelectorAll(query)];
    return {
      open: every("details").map(one => one.open),
      values: every("main input, main select").map(one => one.value),
      atEnd: every("main input").map(one => one.value === one.max),
      focus: every("main *").indexOf(document.activeElement),
    };
  }

  function put(old) {
    const every = query => [...document.querySelectorAll(query)];
    every("details").forEach((one, place) => { if (old.open[place]) one.open = true; });
    const sliders = every("main input");
    every("main input, main select").forEach((one, place) => {
      // Who stands at the end of the trail wants to stay at its end.
      const slider = sliders.indexOf(one);
      if (old.values[place] === undefined || (slider >= 0 && old.atEnd[slider])) return;
      one.value = old.values[place];
      if (one.selectedIndex === -1) one.selectedIndex = 0;
      one.dispatchEvent(new Event(one.tagName === "SELECT" ? "change" : "input"));
    });
    const focus = every("main *")[old.focus];
    if (focus) focus.focus({preventScroll: true});
  }

  async function look() {
    try {
      const stamp = await (await fetch("/stamp", {cache: "no-store"})).text();
      if (stamp !== seen) {
        const text = await (await fetch("/", {cache: "no-store"})).text();
        const page = new DOMParser().parseFromString(text, "text/html");
        const old = kept(), place = window.scrollY;
        thresherPage.stop();
        document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
        for (const id of ["data", "trails"]) document.getElementById(id).textContent = page.getElementById(id).textContent;
        thresherPage.start();
        put(old);
        window.scrollTo({top: place, behavior: "instant"});
        seen = stamp;
      }
      note.textContent = "live";
    } catch {
      note.textContent = "not connected";
    }
    setTimeout(look, 2000);
  }
  setTimeout(look, 2000);
})();
