"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  async function ask(address, options) {
    const answer = await fetch(address, options);
    const value = await answer.json();
    if (value.error) throw new Error(value.error);
    return value;
  }
  const words = (run) =>
    `${run.running ? "training" : "not training"}, step ${run.step.toLocaleString("en")}` +
    (run.steps ? ` of ${run.steps.toLocaleString("en")}` : "") +
    (run.running && run.speed ? `, ${Math.round(run.speed).toLocaleString("en")} images/s` : "") +
    (run.alerts ? `, ${run.alerts} warning(s)` : "");

  async function list() {
    const runs = await ask("list.json");
    $("runs").replaceChildren(
      ...runs.map((run) => {
        const link = document.createElement("a"), name = document.createElement("b");
        link.className = "run";
        name.textContent = run.name;
        link.append(name, ` ${run.error || `${run.recipe} on ${run.data}: ${words(run)}`}`);
        if (run.address) link.href = run.address;
        return link;
      })
    );
    if (!runs.length) $("runs").textContent = "No runs here yet: fastgan train starts one.";
  }

  let shown = null, seen = null;
  async function follow() {
    const run = await ask("status.json");
    $("status").textContent = words(run);
    $("progress").value = run.steps ? Math.min(run.step / run.steps, 1) : 0;
    $("stop").hidden = !run.running;
    if (run.grid !== null && run.grid !== shown) $("grid").src = `grid.png?step=${run.grid}`;
    // the report keeps its place on the page while nothing new is there
    if (seen !== null && seen !== run.step && !run.running) $("report").contentWindow.location.reload();
    [shown, seen] = [run.grid, run.step];
  }

  async function play() {
    const about = await ask("play.json");
    $("why").textContent = about.why;
    const now = { seed: 0, label: 0, truncation: "", moves: new Array(about.sliders).fill(0) };
    let waiting = false, busy = false;
    async function draw() {
      if (busy) { waiting = true; return; }
      busy = true;
      const asked = new URLSearchParams({ ...now, moves: now.moves.map((move) => move.toFixed(3)).join() });
      const answer = await fetch(`play.png?${asked}`);
      if (answer.ok) {
        URL.revokeObjectURL($("image").src);
        $("image").src = $("save").href = URL.createObjectURL(await answer.blob());
        $("why").textContent = about.why;
      } else $("why").textContent = (await answer.json()).error;
      busy = false;
      if (waiting) { waiting = false; draw(); }
    }
    function control(name, made, change) {
      const label = document.createElement("label");
      label.append(name, made);
      made.addEventListener("input", () => { change(made.value); draw(); });
      $("controls").append(label);
      return made;
    }
    const input = (type, settings) => Object.assign(document.createElement("input"), { type, ...settings });
    const seed = control("seed", input("number", { min: 0, value: 0, id: "seed" }), (value) => { now.seed = value || 0; });
    if (about.classes.length) {
      const select = document.createElement("select");
      about.classes.forEach((name, i) => select.add(new Option(name, i)));
      control("class", select, (value) => { now.label = value; });
    }
    control("truncation", input("range", { min: 0.1, max: 3, step: 0.05, value: 3 }), (value) => { now.truncation = value < 3 ? value : ""; });
    const sliders = now.moves.map((_, i) =>
      control(`direction ${i + 1}`, input("range", { min: -about.reach, max: about.reach, step: 0.05, value: 0 }), (value) => { now.moves[i] = Number(value); }));
    $("another").addEventListener("click", () => {
      seed.value = now.seed = Math.floor(Math.random() * 1e6);
      draw();
    });
    $("middle").addEventListener("click", () => {
      sliders.forEach((slider, i) => { slider.value = now.moves[i] = 0; });
      draw();
    });
    await draw();
  }

  async function always(what, each) {
    try { await what(); } catch (error) { ($("status") || $("runs")).textContent = error.message; }
    setTimeout(always, each, what, each);
  }
  if (document.body.dataset.page === "runs") always(list, 3000);
  else {
    always(follow, 2000);
    play().catch((error) => { $("why").textContent = error.message; });
    $("stop").addEventListener("click", () => ask("stop", { method: "POST" }).catch((error) => { $("status").textContent = error.message; }));
  }
})();
