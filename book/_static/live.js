// The live perceptron (llbook/figures/live.py): the reader moves and relabels examples, and a worker
// trains again. Nothing is fetched: the worker is made from the text of `engine`.
"use strict";

(() => {
  // Training, adjoint, greedy and mirror descent, as llbook.optimal has them, in the same order.
  // Self-contained, as only its text reaches the worker. Policies are flat: weight n of step t at t·N + n.
  const engine = (problem) => {
    const { steps: T, eta, initial, evaluations, rate, least } = problem;
    const [first, second] = problem.memories;
    const sign = (inputs, labels) => inputs.map(([x, y], n) => [labels[n] * x, labels[n] * y]);
    const c = sign(problem.desired, problem.desiredLabels);
    const sigmoid = (m) => 1 / (1 + Math.exp(-m));
    const softplus = (m) => Math.max(m, 0) + Math.log1p(Math.exp(-Math.abs(m)));

    // L_dsr and its gradient at θ
    const desired = ([x, y]) => {
      let [loss, gx, gy] = [0, 0, 0];
      for (const [cx, cy] of c) {
        const margin = cx * x + cy * y;
        const pull = sigmoid(-margin);
        loss += softplus(-margin);
        gx -= pull * cx;
        gy -= pull * cy;
      }
      return { loss: loss / c.length, slope: [gx / c.length, gy / c.length] };
    };

    return (inputs, labels) => {
      const a = sign(inputs, labels);
      const N = a.length;
      const pulls = ([x, y]) => a.map(([ax, ay]) => sigmoid(-(ax * x + ay * y)));
      const moved = ([x, y], weights, pull) => {
        for (let n = 0; n < N; n++) {
          x += eta * weights[n] * pull[n] * a[n][0];
          y += eta * weights[n] * pull[n] * a[n][1];
        }
        return [x, y];
      };
      const row = (policy, t) => policy.subarray(t * N, t * N + N);

      const train = (policy) => {
        const [states, losses, slopes, pull] = [[initial], [], [], []];
        for (let t = 0; t <= T; t++) {
          const { loss, slope } = desired(states[t]);
          losses.push(loss);
          slopes.push(slope);
          if (t === T) break;
          pull.push(pulls(states[t]));
          states.push(moved(states[t], row(policy, t), pull[t]));
        }
        const area = losses.slice(1).reduce((sum, loss) => sum + loss, 0);
        return { policy, area, losses, states, slopes, pull };
      };

      // ∂J/∂γ by the backward recursion
      const gradient = ({ policy, slopes, pull }) => {
        const found = new Float64Array(T * N);
        let [lx, ly] = slopes[T];
        for (let t = T - 1; t >= 0; t--) {
          let [hx, hy] = [0, 0];
          for (let n = 0; n < N; n++) {
            const product = pull[t][n] * (a[n][0] * lx + a[n][1] * ly);
            found[t * N + n] = eta * product;
            const curvature = policy[t * N + n] * (1 - pull[t][n]) * product;
            hx += curvature * a[n][0];
            hy += curvature * a[n][1];
          }
          lx += slopes[t][0] - eta * hx;
          ly += slopes[t][1] - eta * hy;
        }
        return found;
      };

      const equal = () => new Float64Array(T * N).fill(1 / N);

      const greedy = (chosen, share) => {
        const policy = new Float64Array(T * N);
        const count = Math.min(chosen, N);
        let theta = initial;
        for (let t = 0; t < T; t++) {
          const pull = pulls(theta);
          const [sx, sy] = desired(theta).slope;
          const contribution = a.map(([ax, ay], n) => -pull[n] * (ax * sx + ay * sy));
          const order = [...a.keys()].sort((n, m) => contribution[m] - contribution[n]);
          for (const n of order.slice(0, count)) policy[t * N + n] = 1 / count;
          theta = moved(theta, row(policy, t), pull);
        }
        return policy.map((weight) => weight * (1 - share) + share / N);
      };

      const searched = () => {
        let best = train(equal());
        let now = train(greedy(...problem.start));
        if (now.area < best.area) best = now;
        // conventional learning, the start and its training, and the return to the best have their price
        const updates = evaluations - 4;
        const [m, v] = [new Float64Array(T * N), new Float64Array(T * N)];
        for (let k = 0; k < updates; k++) {
          const slopes = gradient(now);
          const policy = new Float64Array(T * N);
          const pace = (rate * (1 + Math.cos((Math.PI * k) / updates))) / 2;
          const scale = Math.sqrt(1 - second ** (k + 1)) / (1 - first ** (k + 1));
          for (let t = 0; t < T; t++) {
            let [mean, sum] = [0, 0];
            for (let i = t * N; i < t * N + N; i++) mean += now.policy[i] * slopes[i];
            for (let i = t * N; i < t * N + N; i++) {
              const slope = (slopes[i] - mean) * now.policy[i];
              m[i] += (1 - first) * (slope - m[i]);
              v[i] = second * v[i] + (1 - second) * slope * slope;
              policy[i] = now.policy[i] * Math.exp((-pace * scale * m[i]) / (Math.sqrt(v[i]) + 2 ** -511));
              sum += policy[i];
            }
            for (let i = t * N; i < t * N + N; i++) policy[i] = Math.max(policy[i] / sum, least);
          }
          now = train(policy);
          if (now.area < best.area) best = now;
        }
        return best;
      };

      // Eq. 9, between the running minima
      const acceleration = (losses, even) => {
        const [ours, theirs] = [losses.slice(1), even.slice(1)];
        const goal = Math.min(...theirs);
        const at = ours.findIndex((loss) => loss <= goal);
        return at < 0 ? null : (theirs.indexOf(goal) + 1) / (at + 1);
      };

      const found = { equal: train(equal()), greedy: train(greedy(problem.chosen, 0)), searched: searched() };
      for (const [name, { policy, area, losses, states }] of Object.entries(found))
        found[name] = { policy, area, losses, states, ar: acceleration(losses, found.equal.losses) };
      return found;
    };
  };

  // `run(examples)` answers with the newest examples' results; those overtaken while waiting are dropped
  const trainer = (problem, done) => {
    let worker, direct, sent, next;
    const finish = (results) => {
      sent = undefined;
      if (next) send(next);
      else done(results);
    };
    const send = (examples) => {
      [sent, next] = [examples, undefined];
      if (worker) worker.postMessage(examples);
      else setTimeout(() => finish((direct ??= engine(problem))(...examples)));
    };
    try {
      const text = `const solve = (${engine})(${JSON.stringify(problem)});
        onmessage = ({ data }) => postMessage(solve(...data));`;
      worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
      worker.onmessage = ({ data }) => finish(data);
      worker.onerror = () => {
        worker = undefined;
        send(next ?? sent);
      };
    } catch {
      // where workers are not allowed the page itself trains
    }
    return (inputs, labels) => {
      const examples = [inputs.map((place) => [...place]), [...labels]];
      if (sent) next = examples;
      else send(examples);
    };
  };

  const POLICIES = { equal: ["equal weights", "even"], greedy: ["greedy", "greedy"], searched: ["searched", "near"] };
  const [SIDE, MARGIN] = [360, 14]; // of the plane, in its own units
  const text = (value, digits) => value.toFixed(digits).replace("-", "−");

  const live = (element, data) => {
    const { make, draw, slider, panel, axes, ticks } = window.llbookInteractive;
    const { reach, grid, steps } = data;
    let [inputs, labels] = [data.inputs.map((place) => [...place]), [...data.labels]];
    let results, chosen = "searched", waiting = "";
    const unit = (SIDE / 2 - MARGIN) / reach;
    const at = ([x, y]) => [SIDE / 2 + unit * x, SIDE / 2 - unit * y];
    const signed = (label) => (label > 0 ? "+1" : "−1");
    const kind = (label) => (label > 0 ? "plus" : "minus");
    const mark = (label, size, name) =>
      label > 0
        ? draw("circle", { r: size, class: name })
        : draw("rect", { x: -size, y: -size, width: 2 * size, height: 2 * size, class: name });

    const help = make("p", { class: "live-help", id: `${element.id}-help` },
      "Drag an example, or tap it to flip its label. With the keyboard: Tab goes to an example, the arrows move it, with Shift further, Enter flips its label.");
    const plane = draw("svg", { role: "group", class: "live-plane", viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-label": `${data.label}: training examples, to be moved` });
    const said = make("p", { class: "interactive-text live-said", role: "status", "aria-live": "polite" });
    const losses = draw("svg", { role: "img", "aria-label": "Desired loss over the steps under each policy" });
    const choice = make("fieldset", { class: "live-choice" }, make("legend", {}, "Weights shown:"));
    const step = slider(`${element.id}-step`, "Step", [0, steps, steps], (t) => (t < steps ? `${t} of ${steps}` : "all steps"));
    const reset = make("button", { type: "button", class: "live-reset" }, "Back to the start");
    const rows = make("tbody");

    // the plane: what never changes, the line between the classes, weights, and the examples themselves
    const [middle] = at([0, 0]);
    plane.append(
      draw("rect", { x: 0.5, y: 0.5, width: SIDE - 1, height: SIDE - 1, class: "live-ground" }),
      draw("line", { x1: middle, y1: 0, x2: middle, y2: SIDE, class: "live-axis" }),
      draw("line", { x1: 0, y1: middle, x2: SIDE, y2: middle, class: "live-axis" }),
    );
    data.desired.forEach((place, k) => {
      const one = mark(data.desiredLabels[k], 3, `desired ${kind(data.desiredLabels[k])}`);
      one.setAttribute("transform", `translate(${at(place)})`);
      plane.append(one);
    });
    const border = draw("line", { class: "live-border" });
    plane.append(border);
    const points = inputs.map(() => draw("g", { class: "live-point", role: "button", tabindex: 0, "aria-describedby": help.id }));
    plane.append(...points);

    const weight = (n) => {
      if (!results) return 1;
      const { policy } = results[chosen];
      const t = Number(step.input.value);
      if (t < steps) return policy[t * points.length + n] * points.length;
      let total = 0;
      for (let i = n; i < policy.length; i += points.length) total += policy[i];
      return (total * points.length) / steps;
    };
    const name = (n) => `Example ${n + 1}, label ${signed(labels[n])}, at ${text(inputs[n][0], 2)}, ${text(inputs[n][1], 2)}`;
    const shown = (n) => {
      const share = weight(n);
      const used = share > 1e-3 ? "used" : "idle";
      points[n].setAttribute("transform", `translate(${at(inputs[n])})`);
      points[n].setAttribute("aria-label", `${name(n)}; weight ${text(share, 2)} times the equal share`);
      Object.assign(points[n].dataset, { x: inputs[n][0], y: inputs[n][1], label: labels[n], weight: share });
      const sign = draw("path", { d: labels[n] > 0 ? "M-4 0h8M0 -4v8" : "M-4 0h8", class: "sign" });
      points[n].replaceChildren(
        draw("circle", { r: 15, class: "reach" }),
        draw("circle", { r: 9 * Math.sqrt(share), class: `halo ${kind(labels[n])}` }),
        mark(labels[n], 7, `grip ${kind(labels[n])} ${used}`),
        sign,
      );
    };
    const curves = () => {
      const all = Object.keys(POLICIES).flatMap((one) => results[one].losses);
      const top = Math.max(...all);
      const { px, py, line, ends } = axes(losses, 230, {
        x: [0, steps], y: [0, top], xLabel: "step t", yLabel: "desired loss (nats)", xTicks: ticks(0, steps), yTicks: ticks(0, top),
      });
      for (const [one, [, style]] of Object.entries(POLICIES)) {
        const path = results[one].losses.map((loss, t) => `${px(t).toFixed(1)},${py(loss).toFixed(1)}`).join(" ");
        losses.append(draw("polyline", { points: path, class: style }));
      }
      const t = Number(step.input.value);
      if (t < steps) line(px(t), ends.top, px(t), ends.bottom, "now");
    };
    const show = () => {
      points.forEach((_, n) => shown(n));
      if (!results) return;
      const [x, y] = results[chosen].states[Number(step.input.value)];
      const far = (1.5 * reach) / (Math.hypot(x, y) || 1);
      const [from, to] = [at([-y * far, x * far]), at([y * far, -x * far])];
      for (const [key, value] of Object.entries({ x1: from[0], y1: from[1], x2: to[0], y2: to[1] }))
        border.setAttribute(key, value);
      curves();
    };
    const tell = () => {
      rows.replaceChildren(
        ...Object.entries(POLICIES).map(([one, [words, style]]) => {
          const { area, losses: curve, ar } = results[one];
          const cell = (value, words) => make("td", { "data-value": value }, words);
          const head = make("th", { scope: "row" }, make("span", { class: `key line-${style}` }, words));
          const line = make("tr", { "data-policy": one }, head);
          line.append(cell(area, area.toFixed(3)), cell(curve[steps], curve[steps].toFixed(4)), cell(ar, ar === null ? "never" : ar.toFixed(2)));
          return line;
        }),
      );
      const areas = Object.entries(POLICIES).map(([one, [words]]) => `${words} ${results[one].area.toFixed(2)}`);
      said.textContent = `${waiting}Area J in nats: ${areas.join(", ")}.`;
      waiting = "";
    };
    const run = trainer(data, (found) => {
      results = found;
      element.removeAttribute("aria-busy");
      show();
      if (!drag) tell();
    });
    const changed = () => {
      element.setAttribute("aria-busy", "true");
      run(inputs, labels);
    };
    // onto the grid and inside the plane, whatever is asked for
    const place = (n, x, y) => {
      if (!Number.isFinite(x) || !Number.isFinite(y)) return;
      inputs[n] = [x, y].map((value) => Math.round(Math.min(Math.max(value, -reach), reach) * grid) / grid);
      waiting = `${name(n)}. `;
      shown(n);
      changed();
    };
    const flip = (n) => {
      labels[n] = -labels[n];
      waiting = `${name(n)}. `;
      shown(n);
      changed();
    };

    let drag;
    const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    points.forEach((point, n) => {
      point.addEventListener("keydown", (event) => {
        const arrow = ARROWS[event.key];
        if (!arrow && event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        if (!arrow) return flip(n);
        const far = event.shiftKey ? 0.5 : 0.1;
        place(n, inputs[n][0] + far * arrow[0], inputs[n][1] + far * arrow[1]);
      });
      point.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        point.setPointerCapture(event.pointerId);
        drag = { x: event.clientX, y: event.clientY };
      });
      point.addEventListener("pointermove", (event) => {
        if (!drag || (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 4)) return;
        drag.moved = true;
        const box = plane.getBoundingClientRect();
        const [across, up] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        place(n, ((across - 0.5) * SIDE) / unit, ((0.5 - up) * SIDE) / unit);
      });
      const end = (event) => {
        const { moved } = drag ?? { moved: true };
        drag = undefined;
        if (moved) changed();
        else if (event.type === "pointerup") flip(n);
      };
      point.addEventListener("pointerup", end);
      point.addEventListener("pointercancel", end);
    });
    for (const [one, [words]] of Object.entries(POLICIES)) {
      const input = make("input", { type: "radio", name: `${element.id}-policy`, value: one });
      input.checked = one === chosen;
      input.addEventListener("change", () => {
        chosen = one;
        show();
      });
      choice.append(make("label", {}, input, words));
    }
    step.input.addEventListener("input", show);
    reset.addEventListener("click", () => {
      [inputs, labels] = [data.inputs.map((one) => [...one]), [...data.labels]];
      points.forEach((_, n) => shown(n));
      changed();
    });

    const key = (style, words) => make("span", { class: `key ${style}` }, words);
    const heads = ["policy", "area J", "last loss", "AR"].map((words) => make("th", { scope: "col" }, words));
    element.replaceChildren(
      help,
      make("div", { class: "live-halves" },
        make("div", {}, plane,
          make("p", { class: "interactive-legend" }, key("mark-plus", "label +1"), key("mark-minus", "label −1"), key("mark-desired", "desired (small)"), key("line-border", "undecided"))),
        make("div", {}, choice, step.line,
          panel("Desired loss", losses),
          make("table", { class: "live-table" }, make("thead", {}, make("tr", {}, ...heads)), rows), reset)),
      said,
    );
    new ResizeObserver(show).observe(element);
    show();
    changed();
  };

  (window.llbookKinds ??= {}).live = live;
})();
