"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const outputs = [...document.querySelectorAll("output[data-key]")];
  const show = (value) => {
    if (value === null) return "not finite";
    return Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
  };
  const nearest = (points, step) =>
    points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
  let at = data.high;

  function point(step, visible) {
    at = Math.min(Math.max(step, data.low), data.high);
    for (const output of outputs) output.value = show(nearest(data.series[output.dataset.key], at)[1]);
    for (const plot of plots) {
      const cursor = plot.querySelector(".cursor");
      cursor.style.left = (100 * (at - data.low)) / (data.high - data.low) + "%";
      cursor.style.display = visible ? "block" : "none";
      plot.setAttribute("aria-valuenow", Math.round(at));
      plot.setAttribute("aria-valuetext", "step " + Math.round(at));
    }
  }
  for (const plot of plots) {
    const follow = (event) => {
      const box = plot.getBoundingClientRect();
      point(data.low + ((event.clientX - box.left) / box.width) * (data.high - data.low), true);
    };
    plot.addEventListener("pointermove", follow);
    plot.addEventListener("pointerdown", follow);
    plot.addEventListener("pointerleave", () => point(data.high, false));
    plot.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -100, End: 100 }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      point(at + (move * (data.high - data.low)) / 100, true);
    });
  }
  point(data.high, false);

  const slider = document.getElementById("grid");
  if (!slider) return;
  const images = [...document.querySelectorAll("#grids img")];
  const label = document.querySelector("#grids output");
  const play = document.getElementById("play");
  let timer = null;
  function turn(index) {
    images.forEach((image, i) => { image.hidden = i !== index; });
    slider.value = index;
    const step = Number(images[index].dataset.step);
    label.value = step.toLocaleString("en");
    slider.setAttribute("aria-valuetext", "step " + step);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "play";
  }
  slider.addEventListener("input", () => {
    stop();
    turn(Number(slider.value));
    point(Number(images[slider.value].dataset.step), true);
  });
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    let index = Number(slider.value) === images.length - 1 ? -1 : Number(slider.value);
    play.textContent = "stop";
    timer = setInterval(() => {
      index += 1;
      turn(index);
      if (index === images.length - 1) stop();
    }, 350);
  });
})();
