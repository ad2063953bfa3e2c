"use strict";
// Adds to a page that is whole without it: filter, flicker, keyboard, zoom, slices. Loads and stores nothing.
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  const cards = all("article.card");
  const visible = () => cards.filter((card) => !card.hidden && !card.parentElement.hidden);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let current = null;

  const button = (text, label) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (label) made.setAttribute("aria-label", label);
    return made;
  };

  // Filter.
  const only = one("only");
  const matches = (element, wanted) =>
    !wanted || [element.dataset.verdict, element.dataset.reading].includes(wanted) || (["doubt", "mistaken"].includes(wanted) && wanted in element.dataset);
  const filter = () => {
    for (const card of [...cards, ...all("#table tbody tr")]) card.hidden = !matches(card, only.value);
    for (const group of all("section.group")) {
      const inside = all("article.card", group);
      group.hidden = Boolean(only.value) && group.dataset.verdict !== only.value && inside.every((card) => card.hidden);
    }
    const n = visible().length;
    one("status").textContent = only.value ? `${n} of ${cards.length} cards` : "";
    current = null;
  };
  only.addEventListener("change", filter);

  // Toggles.
  const toggle = (id, name) => {
    one(id).addEventListener("click", () => {
      const on = document.body.classList.toggle(name);
      one(id).setAttribute("aria-pressed", String(on));
    });
  };
  toggle("smooth", "smooth");
  toggle("bare", "bare");

  // Flicker: while held, the counterfactual lies over the input.
  const flicker = (element, on) => {
    if (!element) return;
    element.classList.toggle("flick", on);
    const [caption, other] = all("figcaption", element);
    if (caption) caption.textContent = on ? other.textContent : "Input";
  };
  const hold = (made, element) => {
    const set = (on) => (event) => {
      if (event.type.startsWith("key") && event.key !== " " && event.key !== "Enter") return;
      if (event.type.startsWith("key")) event.preventDefault();
      flicker(element(), on);
    };
    for (const name of ["pointerdown", "keydown"]) made.addEventListener(name, set(true));
    for (const name of ["pointerup", "pointerleave", "pointercancel", "keyup", "blur"]) made.addEventListener(name, set(false));
    made.addEventListener("contextmenu", (event) => event.preventDefault());
  };
  const overlay = (frame, image) => {
    const copy = image.cloneNode();
    copy.className = "over";
    copy.alt = "";
    frame.insertBefore(copy, frame.querySelector("svg"));
  };

  // Steps from row to row.
  const go = (step) => {
    const shown = visible();
    if (!shown.length) return null;
    const at = shown.indexOf(current);
    current = at < 0 ? shown[step > 0 ? 0 : shown.length - 1] : shown[Math.min(shown.length - 1, Math.max(0, at + step))];
    return current;
  };
  const walk = (step) => {
    const card = go(step);
    if (!card) return;
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
  };

  // Zoom.
  const zoom = one("zoom");
  let picked = 0;
  const draw = () => {
    const figures = all("figure", current);
    picked = Math.min(picked, figures.length - 1);
    const caption = figures[picked].querySelector("figcaption").textContent;
    one("zoom-title").textContent = current.querySelector("header strong").textContent;
    one("zoom-caption").textContent = caption;
    const frame = figures[picked].querySelector(".frame").cloneNode(true);
    for (const name of ["tabindex", "role", "aria-label"]) frame.removeAttribute(name);
    if (!frame.querySelector(".over")) overlay(frame, figures[1].querySelector("img"));
    const image = frame.querySelector("img");
    const [w, h] = [image.getAttribute("width"), image.getAttribute("height")];
    frame.style.aspectRatio = `${w} / ${h}`;
    frame.style.maxWidth = `calc((100dvh - 9rem) * ${w / h})`;
    one("zoom-view").replaceChildren(frame);
    one("zoom-pick").replaceChildren(
      ...figures.map((figure, i) => {
        const made = button(figure.querySelector("figcaption").textContent);
        made.setAttribute("aria-pressed", String(i === picked));
        made.addEventListener("click", () => {
          picked = i;
          draw();
        });
        return made;
      }),
      held,
    );
  };
  const held = button("Hold to flicker");
  hold(held, () => one("zoom-view"));
  const open = (card, i) => {
    current = card;
    picked = i;
    draw();
    zoom.showModal();
  };
  const turn = (step) => {
    if (go(step)) draw();
  };
  one("zoom-close").addEventListener("click", () => zoom.close());
  one("zoom-next").addEventListener("click", () => turn(1));
  one("zoom-previous").addEventListener("click", () => turn(-1));
  zoom.addEventListener("click", (event) => {
    if (event.target === zoom) zoom.close();
  });
  zoom.addEventListener("close", () => {
    flicker(one("zoom-view"), false);
    if (current) current.focus();
  });

  for (const card of cards) {
    const figures = all("figure", card);
    overlay(figures[0].querySelector(".frame"), figures[1].querySelector("img"));
    const made = button("Hold to flicker", `Hold to see the counterfactual of ${card.querySelector("strong").textContent} in place of the input`);
    made.className = "hold";
    hold(made, () => card);
    card.querySelector("header").append(made);
    card.addEventListener("focusin", () => (current = card));
    card.addEventListener("pointerdown", () => (current = card));
    figures.forEach((figure, i) => {
      const frame = figure.querySelector(".frame");
      frame.tabIndex = 0;
      frame.setAttribute("role", "button");
      frame.setAttribute("aria-label", `Enlarge: ${frame.querySelector("img").alt}`);
      frame.addEventListener("click", () => open(card, i));
      frame.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        open(card, i);
      });
    });
  }

  // Keys.
  const typing = (target) => target.closest("select, input, textarea, .stack");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const step = { ArrowRight: 1, n: 1, ArrowLeft: -1, p: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (zoom.open) turn(step);
      else walk(step);
    } else if (event.key === "f") flicker(zoom.open ? one("zoom-view") : current, true);
    else if (zoom.open && event.key >= "1" && event.key <= "9") {
      picked = Number(event.key) - 1;
      draw();
    }
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === "f") flicker(zoom.open ? one("zoom-view") : current, false);
  });

  // Slices: without a script the stack scrolls; with one it shows a slice at a time.
  for (const details of all("details.slices")) {
    const stack = details.querySelector(".stack");
    const places = stack.dataset.places.split(" ");
    const slider = document.createElement("input");
    const label = document.createElement("label");
    const said = document.createElement("output");
    Object.assign(slider, { type: "range", min: 0, max: places.length - 1, step: 1, value: stack.dataset.start });
    slider.setAttribute("aria-label", "Axial slice");
    const height = () => stack.querySelector("img").getBoundingClientRect().height / places.length;
    const show = () => {
      stack.style.height = `${height()}px`;
      stack.scrollTop = Number(slider.value) * height();
      said.textContent = `slice ${Number(places[slider.value]) + 1}`;
    };
    slider.addEventListener("input", show);
    stack.addEventListener("wheel", (event) => {
      event.preventDefault();
      slider.value = Number(slider.value) - Math.sign(event.deltaY);
      show();
    }, { passive: false });
    stack.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      slider.value = Number(slider.value) + step;
      show();
    });
    details.addEventListener("toggle", show);
    addEventListener("resize", () => details.open && show());
    label.append(slider, said);
    stack.classList.add("stepped");
    details.append(label);
  }

  // Paper shows what is folded.
  addEventListener("beforeprint", () => all("details:not([open])").forEach((details) => {
    if (!details.matches(".slices, #table")) details.open = true;
  }));

  for (const tools of all(".tools")) tools.hidden = false;
})();
