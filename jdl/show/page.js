"use strict";
// Draws the panels of a page from the JSON in it. Every text enters as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const holder = document.createElement("div");
  holder.innerHTML = "<svg></svg>";
  const SVG = holder.firstChild.namespaceURI;
  const TOP = 10, RIGHT = 14, BOTTOM = 30, HEIGHT = 216;
  const memory = (name) => "jdl " + location.pathname + " " + name;
  const recall = (name) => { try { return sessionStorage.getItem(memory(name)); } catch { return null; } };
  const remember = (name, value) => { try { sessionStorage.setItem(memory(name), value); } catch { /* a browser without storage */ } };

  const hidden = new Set(JSON.parse(recall("hidden") || "[]"));
  let clock = data.clocks.includes(recall("clock")) ? recall("clock") : data.clock;
  let marked = null; // the run that the pointer is on

  function svg(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }

  function html(parent, name, className, text) {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  }

  // ---- numbers as text

  function trimmed(text) { return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text; }

  function number(value, digits = 4) {
    if (value === null) return "not finite";
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-4 || size >= 1e7) return value.toExponential(digits - 2).replace(/\.?0+e/, "e").replace("e+", "e");
    if (size >= 1e4) return Math.round(value).toLocaleString("en");
    return trimmed(value.toPrecision(Math.max(digits, Math.floor(Math.log10(size)) + 1))); // never 2.0e+2
  }

  function large(value, digits, unit) {
    const units = ["", " k", " M", " G", " T"];
    let power = 0;
    while (Math.abs(value) >= 999.5 && power < units.length - 1) { value /= 1000; power += 1; }
    return number(value, digits) + (units[power] || (unit === "B" ? " " : "")) + unit;
  }

  function shown(value, unit, digits = 4) {
    if (value === null) return "not finite";
    if (unit === "share") return number(100 * value, Math.min(digits, 4)) + " %";
    if (unit === "bytes") return large(value, digits, "B");
    if (unit === "rate") return large(value, digits, "/s");
    return number(value, digits);
  }

  function duration(seconds) {
    if (seconds < 100) return trimmed(seconds.toPrecision(3)) + " s";
    if (seconds < 5400) return Math.round(seconds / 60) + " min";
    return trimmed((seconds / 3600).toPrecision(3)) + " h";
  }

  const at = (value) => clock === "seconds" ? duration(value) : clock + " " + number(value, 6);

  // ---- scales and ticks

  function steps(low, high, count, whole) {
    const raw = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    let step = [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) * power;
    if (whole) step = Math.max(1, Math.round(step));
    const ticks = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) ticks.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
    return ticks;
  }

  function decades(low, high) {
    const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high)), ticks = [];
    const factors = high / low <= 150 ? [1, 2, 5] : [1];
    const every = Math.ceil((to - from) / 6);
    for (let power = from; power <= to; power += factors.length > 1 ? 1 : every) {
      for (const factor of factors) {
        const tick = factor * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
      }
    }
    return ticks;
  }

  function scale(low, high, from, to, log) {
    const map = log ? Math.log10 : (value) => value;
    const a = map(low), b = map(high);
    return (value) => from + (to - from) * (map(value) - a) / (b - a || 1);
  }

  function bounds(values, log, fromZero) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value === null || (log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) return log ? [0.1, 1] : [0, 1];
    if (log) { const room = (high / low) ** 0.05 || 1; return low === high ? [low / 2, high * 2] : [low / room, high * room]; }
    if (fromZero && low >= 0) return [0, high * 1.06 || 1];
    const room = low === high ? Math.abs(low) * 0.1 || 0.5 : (high - low) * 0.06;
    return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
  }

  const places = (curve) => data.runs[curve.run].clocks[clock] || data.runs[curve.run].clocks.step || [];
  const visible = (panel) => panel.curves.filter((curve) => !hidden.has(curve.run) && !(curve.training && hidden.has("training")));

  function key(parent, curve) {
    const picture = svg(parent, "svg", { class: "key", viewBox: "0 0 22 10" });
    if (curve.dot) svg(picture, "circle", { cx: 11, cy: 5, r: 4, fill: curve.colour });
    else svg(picture, "line", { x1: 1, y1: 5, x2: 21, y2: 5, ...stroke(curve) });
  }

  function stroke(curve) {
    const width = curve.training ? 1.1 : curve.i && curve.i.length > 250 ? 1.4 : 2;
    const near = marked === null || curve.run === marked;
    return {
      stroke: curve.colour, "stroke-width": near && marked !== null ? width + 1 : width, "stroke-dasharray": curve.dash || "none",
      "stroke-opacity": near ? (curve.training ? 0.65 : 1) : 0.15, fill: "none", "stroke-linejoin": "round", "stroke-linecap": "butt",
    };
  }

  // ---- a panel

  function draw(panel) {
    const box = panel.plot, width = Math.max(box.clientWidth, 160), curves = visible(panel);
    box.textContent = "";
    const picture = svg(box, "svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": panel.title });
    const [lowY, highY] = bounds(curves.flatMap((curve) => curve.y), panel.log, panel.unit !== "");
    let ticksY = panel.log ? decades(lowY, highY) : steps(lowY, highY, 5, false);
    if (panel.log && ticksY.length < 2) ticksY = steps(lowY, highY, 4, false).filter((tick) => tick > 0);
    const digits = panel.log ? 3 : Math.min(6, Math.max(2, Math.ceil(Math.log10(Math.max(Math.abs(lowY), Math.abs(highY)) / (highY - lowY))) + 2));
    const labels = ticksY.map((tick) => shown(tick, panel.unit, digits));
    const left = 14 + 6.4 * Math.max(2, ...labels.map((label) => label.length));
    const [lowX, highX] = widths(curves);
    const x = scale(lowX, highX, left, width - RIGHT, false), y = scale(lowY, highY, HEIGHT - BOTTOM, TOP, panel.log);
    const floor = HEIGHT - BOTTOM;
    ticksY.forEach((tick, index) => {
      svg(picture, "line", { x1: left, x2: width - RIGHT, y1: y(tick), y2: y(tick), stroke: "#d9dee5", "stroke-width": 0.8 });
      svg(picture, "text", { x: left - 6, y: y(tick) + 3.8, "text-anchor": "end" }, labels[index]);
    });
    const wanted = Math.max(2, Math.floor((width - left) / 52));
    for (const tick of steps(lowX, highX, wanted, clock !== "seconds")) {
      svg(picture, "line", { x1: x(tick), x2: x(tick), y1: floor, y2: floor + 4, stroke: "#5f6b7a" });
      const end = x(tick) > width - RIGHT - 14;
      svg(picture, "text", { x: end ? width - 2 : x(tick), y: floor + 16, "text-anchor": end ? "end" : "middle" }, clock === "seconds" ? duration(tick) : number(tick, 6));
    }
    svg(picture, "line", { x1: left, x2: width - RIGHT, y1: floor, y2: floor, stroke: "#5f6b7a" });
    // Thin curves first, the marked run last, so that what matters lies on top.
    const order = [...curves].sort((a, b) => (b.training || false) - (a.training || false) || (a.run === marked) - (b.run === marked));
    for (const curve of order) trace(picture, curve, x, y, panel.log, floor);
    panel.view = { picture, curves, x, y, left, width, floor, lowX, highX };
  }

  function widths(curves) {
    let low = Infinity, high = -Infinity;
    for (const curve of curves) {
      const where = places(curve);
      if (where.length) { low = Math.min(low, where[curve.i[0]]); high = Math.max(high, where[curve.i[curve.i.length - 1]]); }
    }
    if (low > high) return [0, 1];
    return low === high ? [low - 1, high + 1] : [low, high];
  }

  function trace(picture, curve, x, y, log, floor) {
    const where = places(curve), points = curve.y.map((value, n) => value === null || (log && value <= 0) ? null : [x(where[curve.i[n]]), y(value)]);
    let path = "";
    points.forEach((point, n) => {
      if (point === null) return;
      path += (n > 0 && points[n - 1] ? "L" : "M") + point[0].toFixed(1) + " " + point[1].toFixed(1);
      const alone = !(n > 0 && points[n - 1]) && !(n + 1 < points.length && points[n + 1]);
      if (alone) svg(picture, "circle", { cx: point[0], cy: point[1], r: 3, fill: curve.colour });
    });
    if (path) svg(picture, "path", { d: path, ...stroke(curve) });
    const lost = curve.y.flatMap((value, n) => value === null ? [x(where[curve.i[n]])] : []);
    for (const place of lost.slice(0, 200)) svg(picture, "path", { d: `M${place.toFixed(1)} ${floor - 6}l3 6h-6z`, fill: "#c53030" });
    const told = curve.run === marked || (marked === null && data.runs.length <= 4);
    if (curve.best !== null && points[curve.best] && told) {
      svg(picture, "circle", { cx: points[curve.best][0], cy: points[curve.best][1], r: 4, fill: curve.colour, stroke: "#fff", "stroke-width": 1.5 });
    }
  }

  function notes(panel) {
    panel.below.textContent = "";
    for (const curve of panel.curves) {
      if (data.several) continue;
      if (curve.best !== null) html(panel.below, "div", "", `best ${shown(curve.y[curve.best], panel.unit)} at ${at(places(curve)[curve.i[curve.best]])}`);
      if (curve.lost) html(panel.below, "div", "lost", `${curve.label}: ${curve.lost} not finite (▲), first at ${at(places(curve)[curve.first_lost])}`);
    }
    const lost = data.several ? panel.curves.filter((curve) => curve.lost && !hidden.has(curve.run)) : [];
    if (lost.length) html(panel.below, "div", "lost", `▲ not finite: ${[...new Set(lost.map((curve) => data.runs[curve.run].name))].join(", ")}`);
  }

  // ---- what the pointer shows

  function nearest(curve, place) {
    const where = places(curve);
    let low = 0, high = curve.i.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (where[curve.i[middle]] < place) low = middle; else high = middle;
    }
    return Math.abs(where[curve.i[low]] - place) <= Math.abs(where[curve.i[high]] - place) ? low : high;
  }

  function point(panel, event) {
    const view = panel.view, frame = panel.plot.getBoundingClientRect();
    const px = event.clientX - frame.left, py = event.clientY - frame.top;
    leave(panel);
    if (!view.curves.length || px < view.left - 8) return;
    const place = view.lowX + (view.highX - view.lowX) * (px - view.left) / (view.width - RIGHT - view.left);
    const found = view.curves.map((curve) => {
      const n = nearest(curve, place), value = curve.y[n], where = places(curve)[curve.i[n]];
      const height = value === null || (panel.log && value <= 0) ? view.floor : view.y(value);
      return { curve, n, value, where, x: view.x(where), height, far: Math.abs(height - py) };
    });
    const close = found.reduce((a, b) => Math.hypot(b.x - px, b.far) < Math.hypot(a.x - px, a.far) ? b : a);
    const here = found.filter((one) => Math.abs(one.x - close.x) < 12).sort((a, b) => a.height - b.height);
    const middle = here.indexOf(close), first = Math.max(0, Math.min(middle - 5, here.length - 11)), listed = here.slice(first, first + 11);
    panel.cross = svg(view.picture, "g", {});
    svg(panel.cross, "line", { x1: close.x, x2: close.x, y1: TOP, y2: view.floor, stroke: "#5f6b7a", "stroke-width": 0.8 });
    for (const one of listed) if (one.value !== null) svg(panel.cross, "circle", { cx: one.x, cy: one.height, r: one === close ? 4 : 2.5, fill: one.curve.colour, stroke: "#fff" });
    panel.tip = html(panel.figure, "div", "tip");
    html(panel.tip, "div", "quiet", at(close.where) + (clock === "seconds" ? "" : time(close)));
    for (const one of listed) {
      const line = html(panel.tip, "div", one === close ? "near" : "");
      key(line, one.curve);
      html(line, "span", "what", data.several ? data.runs[one.curve.run].name + (one.curve.training ? " (training)" : "") : one.curve.label);
      html(line, "b", "", shown(one.value, panel.unit, 5));
    }
    if (here.length > listed.length) html(panel.tip, "div", "quiet", `and ${here.length - listed.length} more`);
    const inset = panel.plot.offsetLeft, right = close.x + inset + 14, wide = panel.tip.offsetWidth;
    panel.tip.style.left = (right + wide > panel.figure.clientWidth ? Math.max(4, close.x + inset - wide - 14) : right) + "px";
    panel.tip.style.top = Math.max(panel.plot.offsetTop, Math.min(panel.plot.offsetTop + py - 20, panel.figure.clientHeight - panel.tip.offsetHeight)) + "px";
  }

  function time(found) {
    const all = data.runs[found.curve.run].clocks.seconds;
    return all ? ", " + duration(all[found.curve.i[found.n]]) : "";
  }

  function leave(panel) {
    if (panel.tip) panel.tip.remove();
    if (panel.cross) panel.cross.remove();
    panel.tip = panel.cross = null;
  }

  // ---- the page

  function redraw() { for (const panel of data.panels) { draw(panel); notes(panel); } }

  for (const [index, panel] of data.panels.entries()) {
    panel.figure = document.getElementById("panel-" + index);
    const caption = html(panel.figure, "figcaption", "");
    html(caption, "span", "", panel.title + (panel.log ? " (log)" : ""));
    if (!data.several && panel.curves.length + (panel.curves[0].label !== panel.title) > 1) {
      const keys = html(caption, "span", "keys");
      for (const curve of panel.curves) { const one = html(keys, "span", ""); key(one, curve); one.append(curve.label); }
    }
    panel.plot = html(panel.figure, "div", "plot");
    panel.below = html(panel.figure, "div", "below");
    panel.plot.addEventListener("pointermove", (event) => point(panel, event));
    panel.plot.addEventListener("pointerleave", () => leave(panel));
  }

  const clocks = document.getElementById("clocks");
  if (clocks && data.clocks.length > 1) {
    html(clocks, "span", "", "over");
    for (const name of data.clocks) {
      const button = html(clocks, "button", "", name === "seconds" ? "time" : name + "s");
      button.setAttribute("aria-pressed", name === clock);
      button.addEventListener("click", () => {
        clock = name;
        remember("clock", name);
        for (const other of clocks.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
        redraw();
      });
    }
  }

  function mark(run) { marked = run; redraw(); }

  const chips = document.getElementById("chips");
  if (chips) {
    const toggles = data.runs.map((run, index) => [index, run.name, { colour: run.colour, dash: run.dash, run: index }]);
    const thin = data.panels.some((panel) => panel.curves.some((curve) => curve.training));
    if (thin) toggles.push(["training", "training (thin)", { colour: "#5f6b7a", training: true, run: null }]);
    for (const [name, label, look] of toggles) {
      const chip = html(chips, "button", "chip");
      key(chip, look);
      html(chip, "span", "", label);
      chip.title = label;
      chip.setAttribute("aria-pressed", !hidden.has(name));
      chip.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        chip.setAttribute("aria-pressed", !hidden.has(name));
        remember("hidden", JSON.stringify([...hidden]));
        redraw();
      });
      if (name === "training") continue;
      chip.addEventListener("pointerenter", () => mark(name));
      chip.addEventListener("pointerleave", () => mark(null));
    }
  }

  for (const row of document.querySelectorAll("tr[data-run]")) {
    const run = Number(row.dataset.run);
    const place = row.querySelector(".swatch");
    if (place) key(place, data.runs[run]);
  }

  for (const table of document.querySelectorAll("table.runs")) {
    const body = table.tBodies[0];
    for (const head of table.querySelectorAll("th.sorts")) {
      const column = Number(head.dataset.column);
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.querySelectorAll("th.sorts")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value;
        const rows = [...body.rows].sort((a, b) => {
          const x = value(a), y = value(b);
          if (x === "" || y === "") return (x === "") - (y === ""); // what has no value stands last either way
          const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
          return (down ? -1 : 1) * (numbers ? x - y : x.localeCompare(y, undefined, { numeric: true }));
        });
        body.append(...rows);
      };
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } });
    }
  }

  // A page of a run that lasts loads itself again: stay where the reader is, and say when no news comes.
  const ago = document.getElementById("ago");
  if (ago) {
    const tell = () => {
      const past = Math.max(0, Date.now() / 1000 - data.updated), silent = data.running && past > data.patience;
      ago.textContent = past < 5 ? "just now" : duration(Math.round(past)) + " ago";
      if (silent) ago.textContent += ": no news for longer than usual; the process may have been killed";
      ago.style.color = silent ? "var(--red)" : "";
    };
    tell();
    setInterval(tell, 1000);
  }
  addEventListener("pagehide", () => remember("scroll", scrollY));
  let width = 0;
  addEventListener("resize", () => { if (width !== innerWidth) { width = innerWidth; redraw(); } });
  redraw();
  if (data.running && recall("scroll")) scrollTo(0, Number(recall("scroll")));
})();
