"use strict";
(() => {
  const program = JSON.parse(document.getElementById("program").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const count = (shape) => shape.reduce((a, b) => a * b, 1);

  function halves(raw) {
    const view = new DataView(raw.buffer);
    const made = new Float32Array(raw.length / 2);
    for (let i = 0; i < made.length; i++) {
      const bits = view.getUint16(2 * i, true);
      const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, part = bits & 1023;
      made[i] = sign * (power ? 2 ** (power - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
    }
    return made;
  }
  const weights = halves(bytes(document.getElementById("weights").textContent));

  const unary = {
    relu: (x) => (x > 0 ? x : 0), tanh: Math.tanh, sigmoid: (x) => 1 / (1 + Math.exp(-x)),
    silu: (x) => x / (1 + Math.exp(-x)), rsqrt: (x) => 1 / Math.sqrt(x), square: (x) => x * x,
    sqrt: Math.sqrt, exp: Math.exp, neg: (x) => -x,
    softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  };
  const binary = {
    add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b,
    eq: (a, b) => (a === b ? 1 : 0),
  };

  // for each place of `shape`, the place in an array of shape `from` that is stretched to it
  function stretched(from, shape) {
    const strides = new Array(shape.length).fill(0);
    for (let d = shape.length - 1, step = 1; d >= 0; d--) {
      const side = from[d - shape.length + from.length] ?? 1;
      strides[d] = side === 1 ? 0 : step;
      step *= side;
    }
    const made = new Int32Array(count(shape));
    for (let i = 0; i < made.length; i++) {
      let rest = i, at = 0;
      for (let d = shape.length - 1; d >= 0; d--) {
        at += (rest % shape[d]) * strides[d];
        rest = Math.floor(rest / shape[d]);
      }
      made[i] = at;
    }
    return made;
  }

  function linear(node, x, w, b) {
    const wide = w.shape[1], outputs = w.shape[0], y = new Float32Array(count(node.shape));
    for (let r = 0; r < y.length / outputs; r++)
      for (let o = 0; o < outputs; o++) {
        let sum = b ? b.data[o] : 0;
        for (let i = 0; i < wide; i++) sum += x.data[r * wide + i] * w.data[o * wide + i];
        y[r * outputs + o] = sum;
      }
    return y;
  }

  // one image; `turned`: a transposed convolution, which spreads what the other gathers
  function conv(node, x, w, b, turned) {
    const [, , h, wide] = x.shape, [, outputs, oh, ow] = node.shape;
    const [, , kh, kw] = w.shape, [sy, sx] = node.stride, [py, px] = node.padding, [dy, dx] = node.dilation;
    const inputs = x.shape[1], each = inputs / node.groups, gives = outputs / node.groups;
    const y = new Float32Array(outputs * oh * ow);
    if (b) for (let o = 0; o < outputs; o++) y.fill(b.data[o], o * oh * ow, (o + 1) * oh * ow);
    for (let o = 0; o < outputs; o++) {
      const group = Math.floor(o / gives);
      for (let i = group * each; i < (group + 1) * each; i++)
        for (let ky = 0; ky < kh; ky++)
          for (let kx = 0; kx < kw; kx++) {
            const at = turned ? (i * gives + (o - group * gives)) : o * each + (i - group * each);
            const weight = w.data[(at * kh + ky) * kw + kx];
            // rows and columns of the small side, and where each lies on the large one
            const rows = turned ? h : oh, columns = turned ? wide : ow;
            const high = turned ? oh : h, broad = turned ? ow : wide;
            for (let r = 0; r < rows; r++) {
              const far = r * sy - py + ky * dy;
              if (far < 0 || far >= high) continue;
              for (let c = 0; c < columns; c++) {
                const off = c * sx - px + kx * dx;
                if (off < 0 || off >= broad) continue;
                if (turned) y[(o * oh + far) * ow + off] += weight * x.data[(i * h + r) * wide + c];
                else y[(o * oh + r) * ow + c] += weight * x.data[(i * h + far) * wide + off];
              }
            }
          }
    }
    return y;
  }

  function cat(node, parts) {
    const dim = (node.dim + node.shape.length) % node.shape.length, y = new Float32Array(count(node.shape));
    const outer = count(node.shape.slice(0, dim));
    let at = 0;
    for (let i = 0; i < outer; i++)
      for (const part of parts) {
        const size = part.data.length / outer;
        y.set(part.data.subarray(i * size, (i + 1) * size), at);
        at += size;
      }
    return y;
  }

  function nearest(node, x) {
    const [, channels, h, wide] = x.shape, [, , oh, ow] = node.shape, y = new Float32Array(count(node.shape));
    for (let c = 0, at = 0; c < channels; c++)
      for (let r = 0; r < oh; r++)
        for (let k = 0; k < ow; k++)
          y[at++] = x.data[(c * h + Math.floor((r * h) / oh)) * wide + Math.floor((k * wide) / ow)];
    return y;
  }

  // corners are not aligned
  function bilinear(node, x) {
    const [, channels, h, wide] = x.shape, [, , oh, ow] = node.shape, y = new Float32Array(count(node.shape));
    const along = (i, from, to) => {
      const place = Math.max(((i + 0.5) * from) / to - 0.5, 0), low = Math.floor(place);
      return [low, Math.min(low + 1, from - 1), place - low];
    };
    for (let c = 0, at = 0; c < channels; c++)
      for (let r = 0; r < oh; r++)
        for (let k = 0; k < ow; k++) {
          const [top, bottom, down] = along(r, h, oh), [left, right, over] = along(k, wide, ow);
          const value = (row, column) => x.data[(c * h + row) * wide + column];
          y[at++] =
            (1 - down) * ((1 - over) * value(top, left) + over * value(top, right)) +
            down * ((1 - over) * value(bottom, left) + over * value(bottom, right));
        }
    return y;
  }

  function pool(node, x) {
    const [, channels, h, wide] = x.shape, [, , oh, ow] = node.shape, [eh, ew] = node.each;
    const mean = node.op === "average", y = new Float32Array(count(node.shape)).fill(mean ? 0 : -Infinity);
    for (let c = 0; c < channels; c++)
      for (let r = 0; r < h; r++)
        for (let k = 0; k < wide; k++) {
          const at = (c * oh + Math.floor(r / eh)) * ow + Math.floor(k / ew);
          const value = x.data[(c * h + r) * wide + k];
          y[at] = mean ? y[at] + value / (eh * ew) : Math.max(y[at], value);
        }
    return y;
  }

  function mean(node, x) {
    const to = stretched(node.kept, x.shape), y = new Float32Array(count(node.shape));
    for (let i = 0; i < to.length; i++) y[to[i]] += (x.data[i] * y.length) / to.length;
    return y;
  }

  function strided(node, x) {
    const y = new Float32Array(count(node.shape));
    for (let i = 0; i < y.length; i++) {
      let rest = i, at = node.from;
      for (let d = node.shape.length - 1; d >= 0; d--) {
        at += (rest % node.shape[d]) * node.strides[d];
        rest = Math.floor(rest / node.shape[d]);
      }
      y[i] = x.data[at];
    }
    return y;
  }

  function glu(node, x) {
    const dim = (node.dim + x.shape.length) % x.shape.length, y = new Float32Array(count(node.shape));
    const half = count(node.shape.slice(dim));
    for (let i = 0; i < y.length; i++) {
      const at = Math.floor(i / half) * 2 * half + (i % half);
      y[i] = x.data[at] * unary.sigmoid(x.data[at + half]);
    }
    return y;
  }

  function attention(node, q, k, v) {
    const [rows, wide] = q.shape.slice(-2), [keys, gives] = v.shape.slice(-2);
    const y = new Float32Array(count(node.shape)), scores = new Float64Array(keys);
    for (let batch = 0; batch < y.length / (rows * gives); batch++)
      for (let r = 0; r < rows; r++) {
        for (let s = 0; s < keys; s++) {
          scores[s] = 0;
          for (let e = 0; e < wide; e++)
            scores[s] += node.scale * q.data[(batch * rows + r) * wide + e] * k.data[(batch * keys + s) * wide + e];
        }
        const most = Math.max(...scores), powers = scores.map((score) => Math.exp(score - most));
        const sum = powers.reduce((a, b) => a + b, 0);
        for (let s = 0; s < keys; s++)
          for (let e = 0; e < gives; e++)
            y[(batch * rows + r) * gives + e] += (powers[s] / sum) * v.data[(batch * keys + s) * gives + e];
      }
    return y;
  }

  function lerp(node, x, end, weight) {
    const y = new Float32Array(count(node.shape));
    const [a, b, w] = [x, end, weight].map((part) => stretched(part.shape, node.shape));
    for (let i = 0; i < y.length; i++)
      y[i] = x.data[a[i]] + weight.data[w[i]] * (end.data[b[i]] - x.data[a[i]]);
    return y;
  }

  const functions = {
    bilinear, mean, strided, glu, attention, lerp, linear, nearest, average: pool, most: pool,
    conv: (node, x, w, b) => conv(node, x, w, b, false),
    conv_transpose: (node, x, w, b) => conv(node, x, w, b, true),
  };

  function step(node, given, values) {
    const [x, second] = given;
    if (unary[node.op]) return x.data.map(unary[node.op]);
    if (binary[node.op]) {
      const f = binary[node.op], y = new Float32Array(count(node.shape));
      if (node.left !== undefined) return x.data.map((value) => f(node.left, value));
      if (node.right !== undefined) return x.data.map((value) => f(value, node.right));
      const a = stretched(x.shape, node.shape), b = stretched(second.shape, node.shape);
      for (let i = 0; i < y.length; i++) y[i] = f(x.data[a[i]], second.data[b[i]]);
      return y;
    }
    if (node.op === "input") return Float32Array.from(values[node.name]);
    if (node.op === "weight") return weights.subarray(node.at, node.at + count(node.shape));
    if (node.op === "same") return x.data;
    if (node.op === "leaky_relu") return x.data.map((value) => (value > 0 ? value : value * node.slope));
    if (functions[node.op]) return functions[node.op](node, ...given);
    if (node.op === "cat") return cat(node, given);
    if (node.op === "embedding") {
      const wide = x.shape[1];
      return x.data.slice(second.data[0] * wide, (second.data[0] + 1) * wide);
    }
    throw new Error(`no ${node.op} here`);
  }

  // {shape: [1, C, H, W], data: bytes} of inputs by name
  function generate(values) {
    const done = [];
    for (const node of program.nodes)
      done.push({ shape: node.shape, data: step(node, (node.in || []).map((i) => done[i]), values) });
    const { shape, data } = done[program.result];
    return { shape, data: Uint8ClampedArray.from(data, (value) => Math.round((value + 1) * 127.5)) };
  }

  function normal() {
    return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  }
  const now = Object.fromEntries(program.inputs.map((input) => [input.name, [...input.first]]));
  const sliders = [];
  const canvas = document.getElementById("image");

  function draw() {
    const { shape: [, channels, h, wide], data } = generate(now);
    canvas.width = wide;
    canvas.height = h;
    const picture = new ImageData(wide, h);
    for (let i = 0; i < h * wide; i++)
      for (let c = 0; c < 4; c++)
        picture.data[4 * i + c] = c === 3 ? (channels === 4 ? data[3 * h * wide + i] : 255) : data[(channels < 3 ? 0 : c) * h * wide + i];
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  function control(input, i) {
    const label = document.createElement("label");
    const classes = Array.isArray(input.classes) ? input.classes : [...Array(input.classes).keys()];
    label.append(input.kind === "label" ? "class" : `${input.name} ${i + 1}`);
    const made = document.createElement(classes.length ? "select" : "input");
    if (classes.length) classes.forEach((name, k) => made.add(new Option(name, k)));
    else {
      made.type = "range";
      made.step = 0.01;
      [made.min, made.max] = input.kind === "uniform" ? [input.low, input.high] : [-3, 3];
    }
    const output = document.createElement("output");
    const show = () => {
      made.value = now[input.name][i];
      output.value = classes.length ? "" : now[input.name][i].toFixed(2);
    };
    made.addEventListener("input", () => {
      now[input.name][i] = Number(made.value);
      output.value = classes.length ? "" : now[input.name][i].toFixed(2);
      draw();
    });
    sliders.push(show);
    show();
    label.append(made, output);
    document.getElementById("inputs").append(label);
  }
  for (const input of program.inputs)
    for (let i = 0; i < Math.min(input.first.length, 8); i++) control(input, i);

  document.getElementById("again").addEventListener("click", () => {
    for (const input of program.inputs)
      now[input.name] = now[input.name].map((old) =>
        input.kind === "normal" ? normal() : input.kind === "uniform" ? input.low + (input.high - input.low) * Math.random() : old);
    sliders.forEach((show) => show());
    draw();
  });
  document.getElementById("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.download = "image.png";
    link.href = canvas.toDataURL("image/png");
    link.click();
  });

  const wanted = bytes(program.expected), made = generate(now).data;
  const furthest = wanted.reduce((most, level, i) => Math.max(most, Math.abs(level - made[i])), 0);
  const check = document.getElementById("check");
  check.dataset.difference = furthest;
  check.textContent = `Runs in this page alone. The first image differs from PyTorch's by at most ${furthest} of 255.`;
  draw();
})();
