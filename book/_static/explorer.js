// The interactive figures: made from the JSON inside elements of class "interactive"
// (llbook/figures/explorer.py). Nothing is fetched, no library is used.
"use strict";

(() => {
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes = {}, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const number = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size >= 1e-3 && size < 1e4 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
    return text.replace("e+", "e").replaceAll("-", "−");
  };
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  // a labelled slider; `say` gives the words for its value
  const slider = (id, label, [least, most, value], say) => {
    const input = make("input", { type: "range", id, min: least, max: most, step: 1, value });
    const shown = make("output", { for: id });
    const update = () => {
      shown.textContent = say(Number(input.value));
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", update);
    update();
    const line = make("div", { class: "interactive-control" });
    line.append(make("label", { for: id }, label), input, shown);
    return { input, line, update };
  };

  const panel = (title, ...content) =>
    make("div", { class: "interactive-panel" }, make("p", { class: "interactive-title" }, title), ...content);

  // axes of a panel: a frame, ticks, and the functions from values to places
  const axes = (picture, height, { x, y, xLabel, yLabel, xTicks, yTicks, root }) => {
    const width = Math.max(240, picture.clientWidth || 240);
    picture.replaceChildren();
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    const [left, right, top, bottom] = [52, 12, 10, 40];
    const bend = root ? Math.cbrt : (value) => value;
    const px = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (width - left - right);
    const py = (value) =>
      height - bottom - ((bend(value) - bend(y[0])) / (bend(y[1]) - bend(y[0]))) * (height - top - bottom);
    const line = (x1, y1, x2, y2, kind) => picture.append(draw("line", { x1, y1, x2, y2, class: kind }));
    for (const tick of xTicks) {
      line(px(tick), height - bottom, px(tick), height - bottom + 4, "frame");
      picture.append(
        draw("text", { x: px(tick), y: height - bottom + 17, "text-anchor": "middle" }, number(tick)),
      );
    }
    for (const tick of yTicks) {
      line(left - 4, py(tick), left, py(tick), "frame");
      picture.append(draw("text", { x: left - 7, y: py(tick) + 4, "text-anchor": "end" }, number(tick)));
    }
    line(left, height - bottom, width - right, height - bottom, "frame");
    line(left, top, left, height - bottom, "frame");
    picture.append(
      draw("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xLabel),
      draw("text", { x: 12, y: height / 2 - 10, "text-anchor": "middle", transform: `rotate(-90 12 ${height / 2 - 10})` }, yLabel),
    );
    return { px, py, line, ends: { left, right: width - right, top, bottom: height - bottom } };
  };
  const ticks = (least, most, count = 4) => {
    const rough = (most - least) / count;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
    const found = [];
    for (let at = Math.ceil(least / step) * step; at <= most + step / 1e6; at += step)
      found.push(Math.abs(at) < step / 1e6 ? 0 : at);
    return found;
  };

  // dark to bright, as the figures' own colour map
  const MAP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const colour = (share) => {
    const at = Math.min(share, 0.9999) * (MAP.length - 1);
    const low = Math.floor(at);
    return MAP[low].map((part, i) => Math.round(part + (at - low) * (MAP[low + 1][i] - part)));
  };

  const explorer = (element, data) => {
    const count = data.steps.length;
    const weightCodes = bytes(data.weights);
    const contributionCodes = bytes(data.contributions);
    const examples = weightCodes.length / count;
    const weight = (n, s) => (weightCodes[s * examples + n] / 255) ** 2 * data.weightTops[s];
    const contribution = (n, s) =>
      ((contributionCodes[s * examples + n] - 128) / 127) * data.contributionTops[s];
    const highest = Math.max(1, ...data.weightTops);

    const control = slider(`${element.id}-step`, "Step t", [0, count - 1, Math.round(count / 8)], (s) => `${data.steps[s]} of ${data.length}`);
    const said = make("p", { class: "interactive-text", role: "status", "aria-live": "polite" });
    const losses = draw("svg", { role: "img", "aria-label": `${data.label}: test loss over the steps, with a mark at the current step` });
    const points = draw("svg", { role: "img", "aria-label": `${data.label}: weight over contribution of each example at the current step` });
    const canvas = make("canvas", { role: "img", "aria-label": `${data.label}: weights of all examples at all steps`, width: count, height: examples });
    const now = make("div", { class: "interactive-now" });

    const pixels = canvas.getContext("2d");
    const image = pixels.createImageData(count, examples);
    for (let n = 0; n < examples; n++)
      for (let s = 0; s < count; s++)
        image.data.set([...colour((weight(n, s) / highest) ** 0.25), 255], 4 * (n * count + s));
    pixels.putImageData(image, 0, 0);

    const curves = (s) => {
      const top = Math.max(...data.evenCurve, ...data.nearCurve);
      const least = Math.min(...data.evenCurve, ...data.nearCurve);
      const low = least > top / 2 ? least - (top - least) / 10 : 0;
      const { px, py, line, ends } = axes(losses, 220, {
        x: [0, data.length], y: [low, top], xLabel: "step t", yLabel: "test loss (nats)",
        xTicks: ticks(0, data.length), yTicks: ticks(low, top),
      });
      const path = (values) => data.curve.map((t, i) => `${px(t).toFixed(1)},${py(values[i]).toFixed(1)}`).join(" ");
      losses.append(
        draw("polyline", { points: path(data.evenCurve), class: "even" }),
        draw("polyline", { points: path(data.nearCurve), class: "near" }),
      );
      line(px(data.steps[s]), ends.top, px(data.steps[s]), ends.bottom, "now");
      losses.append(
        draw("circle", { cx: px(data.steps[s]), cy: py(data.even[s]), r: 4, class: "even-dot" }),
        draw("circle", { cx: px(data.steps[s]), cy: py(data.near[s]), r: 5, class: "near-dot" }),
      );
    };

    const scatter = (s) => {
      const wide = data.contributionTops[s] * 1.05 || 1;
      const { px, py, line, ends } = axes(points, 260, {
        x: [-wide, wide], y: [0, highest], xLabel: "contribution CT, at this step", yLabel: "weight γN", root: true,
        xTicks: ticks(-wide, wide), yTicks: [0, 1, ...(highest > 20 ? [Math.round(highest / 8)] : []), Math.round(highest)].filter((v, i, all) => all.indexOf(v) === i),
      });
      line(px(0), ends.top, px(0), ends.bottom, "frame");
      line(ends.left, py(1), ends.right, py(1), "share");
      line(px(data.mean[s]), ends.top, px(data.mean[s]), ends.bottom, "now");
      for (let n = 0; n < examples; n++) {
        const [x, y] = [px(contribution(n, s)), py(weight(n, s))];
        const used = weightCodes[s * examples + n] > 0 ? "used" : "unused";
        points.append(
          data.perturbed?.[n]
            ? draw("path", { d: `M${x} ${y - 4.5}l4.2 7.5h-8.4z`, class: `${used} spoilt` })
            : draw("circle", { cx: x, cy: y, r: 3.4, class: used }),
        );
      }
    };

    const tell = (s) => {
      const used = [];
      for (let n = 0; n < examples; n++) if (weightCodes[s * examples + n]) used.push(n);
      const similarity = data.similarity[s];
      const idle = data.idle[s]
        ? `Of ${data.idle[s]} examples with CT ≤ 0, ${Math.round((100 * data.idleZero[s]) / data.idle[s])}% have no weight.`
        : "No example has CT ≤ 0.";
      said.textContent =
        `Step ${data.steps[s]}: test loss ${number(data.near[s])} nats, under equal weights ${number(data.even[s])}. ` +
        `${data.support[s]} examples carry weight; their weighted mean contribution is ${number(data.mean[s])}, ` +
        `SIM ${similarity === null ? "undefined" : number(similarity)}. ${idle} ` +
        `Shown: ${examples} examples, ${used.length} of them in use.`;
    };

    const show = () => {
      const s = Number(control.input.value);
      curves(s);
      scatter(s);
      tell(s);
      now.style.left = `${(100 * (s + 0.5)) / count}%`;
    };
    const key = (kind, words) => make("span", { class: `key ${kind}` }, words);
    const legend = make("p", { class: "interactive-legend" }, key("dot-used", "in use"), key("dot-unused", "no weight"));
    if (data.perturbed) legend.append(key("dot-spoilt", "perturbed (triangles)"));
    legend.append(key("line-now", "mean over the weights"), key("line-share", "equal share"));
    element.replaceChildren(
      control.line,
      said,
      panel("Test loss", losses, make("p", { class: "interactive-legend" }, key("line-even", "equal weights"), key("line-near", "searched policy"), key("line-now", "this step"))),
      panel("Each example at this step", points, legend),
      panel("Weights: steps from left to right, examples in the order of use, brighter is more", make("div", { class: "interactive-heat" }, canvas, now)),
    );
    control.input.addEventListener("input", show);
    new ResizeObserver(show).observe(element);
    show();
  };

  const law = (element, data) => {
    const turn = slider(`${element.id}-turn`, "Turn", [-180, 180, -68], (angle) => `${angle}°`.replace("-", "−"));
    const tilt = slider(`${element.id}-tilt`, "Tilt", [0, 90, 14], (angle) => `${angle}°`);
    const equal = slider(`${element.id}-equal`, "Towards the law", [0, 100, 0], (share) => `${share}%`);
    const said = make("p", { class: "interactive-text", role: "status", "aria-live": "polite" });
    const picture = draw("svg", { role: "img", "aria-label": "Gradients of three examples around ∇L; their heights along it are their contributions", class: "law-3d" });

    const show = () => {
      const width = Math.max(240, picture.clientWidth || 240);
      const height = Math.min(380, 0.9 * width);
      const share = Number(equal.input.value) / 100;
      const heights = data.unequal.map((from, n) => from + share * (data.equal[n] - from));
      const [yaw, pitch] = [turn, tilt].map((one) => (Number(one.input.value) * Math.PI) / 180);
      const scale = height / 2.35;
      const place = ([x, y, z]) => {
        const side = -x * Math.sin(yaw) + y * Math.cos(yaw);
        const depth = x * Math.cos(yaw) + y * Math.sin(yaw);
        return [width / 2 + scale * side, 0.8 * height - scale * (z * Math.cos(pitch) - depth * Math.sin(pitch)) - (0.3 * height * pitch) / 1.57, depth];
      };
      picture.replaceChildren();
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.setAttribute("height", height);
      const word = (at, text, kind) => picture.append(draw("text", { x: at[0], y: at[1], class: kind ?? "", "text-anchor": "middle" }, text));
      const arrow = (head, kind) => {
        const [[x1, y1], [x2, y2]] = [place([0, 0, 0]), place(head)];
        const length = Math.hypot(x2 - x1, y2 - y1) || 1;
        const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
        const tip = Math.min(12, length);
        const [bx, by] = [x2 - tip * ux, y2 - tip * uy];
        picture.append(
          draw("line", { x1, y1, x2: bx, y2: by, class: kind }),
          draw("polygon", { points: `${x2},${y2} ${bx - 5 * uy},${by + 5 * ux} ${bx + 5 * uy},${by - 5 * ux}`, class: `${kind} tip` }),
        );
      };
      const level = heights.reduce((sum, one) => sum + one, 0) / heights.length;
      const rim = Array.from({ length: 48 }, (_, i) => {
        const angle = (2 * Math.PI * i) / 48;
        return place([1.08 * Math.cos(angle), 1.08 * Math.sin(angle), level]).slice(0, 2).join(",");
      });
      picture.append(draw("polygon", { points: rim.join(" "), class: share === 1 ? "plane" : "plane faint" }));
      arrow([0, 0, 1.5], "axis");
      word([place([0, 0, 1.5])[0], place([0, 0, 1.5])[1] - 8], "∇L");
      data.across
        .map((flat, n) => ({ n, flat, depth: place([...flat, 0])[2] }))
        .sort((one, other) => one.depth - other.depth)
        .forEach(({ n, flat }) => {
          const head = [...flat, heights[n]];
          const [hx, hy] = place(head);
          const [fx, fy] = place([0, 0, heights[n]]);
          picture.append(
            draw("line", { x1: hx, y1: hy, x2: fx, y2: fy, class: `foot arrow-${n + 1}` }),
            draw("circle", { cx: fx, cy: fy, r: 3.5, class: `arrow-${n + 1} tip` }),
          );
          arrow(head, `arrow-${n + 1}`);
          word([hx + (hx > fx ? 14 : -14), hy - 6], `g${"₁₂₃"[n]}`, "name");
        });
      const names = heights.map((one, n) => `CT${"₁₂₃"[n]} ${one.toFixed(2)}`).join(", ");
      const best = heights.indexOf(Math.max(...heights));
      said.textContent = share === 1
        ? `Heights along ∇L: ${names}. All are equal: the heads lie in one plane, and the law holds.`
        : `Heights along ∇L: ${names}. They differ: weight should move to example ${best + 1}.`;
    };
    const drag = {};
    picture.addEventListener("pointerdown", (event) => {
      Object.assign(drag, { x: event.clientX, y: event.clientY, on: true });
      picture.setPointerCapture(event.pointerId);
    });
    picture.addEventListener("pointermove", (event) => {
      if (!drag.on) return;
      const angle = Number(turn.input.value) - 0.6 * (event.clientX - drag.x);
      turn.input.value = ((angle + 540) % 360) - 180;
      tilt.input.value = Number(tilt.input.value) + 0.4 * (event.clientY - drag.y);
      Object.assign(drag, { x: event.clientX, y: event.clientY });
      turn.update();
      tilt.update();
      show();
    });
    for (const end of ["pointerup", "pointercancel"]) picture.addEventListener(end, () => (drag.on = false));
    element.replaceChildren(picture, turn.line, tilt.line, equal.line, said);
    for (const { input } of [turn, tilt, equal]) input.addEventListener("input", show);
    new ResizeObserver(show).observe(element);
    show();
  };

  // pages load their scripts in no certain order: others add their kinds before or after this
  const kinds = Object.assign((window.llbookKinds ??= {}), { explorer, "law-3d": law });
  window.llbookInteractive = { make, draw, slider, panel, axes, ticks };
  document.addEventListener("DOMContentLoaded", () => {
    for (const element of document.querySelectorAll(".interactive[data-kind]"))
      kinds[element.dataset.kind](element, JSON.parse(element.querySelector("script").textContent));
  });
})();
