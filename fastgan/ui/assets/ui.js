"use strict";
(() => {
  const FRAMES = 24;
  const $ = (id) => document.getElementById(id);
  async function ask(address, options) {
    const answer = await fetch(address, options);
    const value = await answer.json();
    if (value.error) throw new Error(value.error);
    return value;
  }
  const words = (run) =>
    `${run.running ? "training" : run.starting ? "starting" : "not training"}, step ${run.step.toLocaleString("en")}` +
    (run.steps ? ` of ${run.steps.toLocaleString("en")}` : "") +
    (run.running && run.speed ? `, ${Math.round(run.speed).toLocaleString("en")} images/s` : "") +
    (run.alerts ? `, ${run.alerts === 1 ? "1 warning" : `${run.alerts} warnings`}` : "") +
    (run.why ? `. Going on failed: ${run.why}` : "");

  let listed = "";
  async function list() {
    const runs = await ask("list.json");
    if (JSON.stringify(runs) === listed) return;
    listed = JSON.stringify(runs);
    $("runs").replaceChildren(
      ...runs.map((run) => {
        const link = document.createElement("a"), name = document.createElement("b");
        link.className = "run";
        name.textContent = run.name;
        const text = document.createElement("span");
        text.append(name, ` ${run.error || `${run.recipe} on ${run.data}`}`, document.createElement("br"), run.error ? "" : words(run));
        if (run.address) link.href = run.address;
        const picture = new Image();
        picture.alt = "";
        if (run.address && run.grid !== null) picture.src = `${run.address}grid.png?step=${run.grid}`;
        link.append(picture, text);
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
    $("resume").hidden = run.running || run.starting;
    if (!$("until").value) $("until").value = run.steps > run.step ? Math.min(run.steps, 2 * run.step || 1000) : 2 * run.step;
    if (run.grid !== null && run.grid !== shown) $("grid").src = `grid.png?step=${run.grid}`;
    // the report keeps its place on the page while nothing new is there
    if (seen !== null && seen !== run.step && !run.running) $("report").contentWindow.location.reload();
    [shown, seen] = [run.grid, run.step];
  }

  async function play() {
    const about = await ask("play.json");
    $("why").textContent = about.why;
    const now = { seed: 0, label: 0, truncation: "", text: "", to: 0, at: 0, moves: new Array(about.sliders).fill(0) };
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
      const label = document.createElement("label"), output = document.createElement("output");
      label.append(name, made, output);
      made.show = () => { if (made.type === "range") output.value = made.value === made.dataset.off ? "off" : Number(made.value).toFixed(2); };
      made.show();
      made.addEventListener("input", () => { change(made.value); made.show(); draw(); });
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
    if (about.text) control("text", input("text", { placeholder: "a caption", maxLength: 1000 }), (value) => { now.text = value; });
    const cut = input("range", { min: 0.1, max: 3, step: 0.05, value: 3 });
    cut.dataset.off = "3";
    control("truncation", cut, (value) => { now.truncation = value < 3 ? value : ""; });
    const sliders = now.moves.map((_, i) =>
      control(`direction ${i + 1}`, input("range", { min: -about.reach, max: about.reach, step: 0.05, value: 0 }), (value) => { now.moves[i] = Number(value); }));
    $("another").addEventListener("click", () => {
      seed.value = now.seed = Math.floor(Math.random() * 1e6);
      draw();
    });
    $("walk").addEventListener("click", async () => {
      $("walk").disabled = true;
      now.to = Math.floor(Math.random() * 1e6);
      for (let i = 1; i < FRAMES; i++) {
        now.at = i / FRAMES;
        await Promise.all([draw(), new Promise((done) => setTimeout(done, 40))]);
      }
      seed.value = now.seed = now.to;
      now.at = 0;
      await draw();
      $("walk").disabled = false;
    });
    $("middle").addEventListener("click", () => {
      sliders.forEach((slider, i) => { slider.value = now.moves[i] = 0; slider.show(); });
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
    const press = (address) => ask(address, { method: "POST" }).catch((error) => { $("status").textContent = error.message; });
    $("stop").addEventListener("click", () => press("stop"));
    $("go").addEventListener("click", async () => {
      $("resume").hidden = true;
      await press(`resume?steps=${encodeURIComponent($("until").value)}`);
      $("until").value = "";
    });
  }
})();
