"use strict";

for (const viewer of document.querySelectorAll(".viewer")) {
  const frame = viewer.querySelector(".frame");
  const stage = viewer.querySelector(".stage");
  const divider = viewer.querySelector(".divider");
  const scroll = viewer.querySelector(".scroll");
  const sides = [...viewer.querySelectorAll(".side")];

  const selects = viewer.querySelectorAll(".choose");

  // The maps beneath can be chosen too; the file holds each of them once.
  for (const map of viewer.parentElement.querySelectorAll(".maps img")) {
    const side = map.cloneNode();
    side.className = "side";
    side.draggable = false;
    divider.before(side);
    sides.push(side);
    for (const select of selects) select.add(new Option(map.alt, sides.length - 1));
  }

  const moveTo = (percent) => {
    const value = Math.min(100, Math.max(0, percent));
    stage.style.setProperty("--split", `${value}%`);
    divider.setAttribute("aria-valuenow", Math.round(value));
  };
  const value = () => parseFloat(stage.style.getPropertyValue("--split") || "50");

  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    moveTo((100 * (event.clientX - box.left)) / box.width);
  };
  stage.addEventListener("pointerdown", (event) => {
    // A finger beside the divider scrolls the page.
    if (event.button !== 0 || (event.pointerType !== "mouse" && event.target !== divider)) return;
    stage.setPointerCapture(event.pointerId);
    follow(event);
    event.preventDefault();
    divider.focus({ preventScroll: true, focusVisible: false });
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });

  const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
  const ENDS = { Home: 0, End: 100 };
  divider.addEventListener("keydown", (event) => {
    if (event.key in STEPS) moveTo(value() + STEPS[event.key]);
    else if (event.key in ENDS) moveTo(ENDS[event.key]);
    else return;
    event.preventDefault();
  });

  for (const select of selects) {
    const end = select.dataset.end;
    const choose = () => {
      sides.forEach((side, i) => side.classList.toggle(end, i === Number(select.value)));
      frame.dataset[end] = select.selectedOptions[0].label;
    };
    select.addEventListener("change", choose);
    choose(); // A browser that goes back to the page restores the choice, not what it did.
  }

  const zoom = viewer.querySelector(".zoom");
  const enlarge = () => {
    frame.classList.toggle("zoomed", zoom.value !== "");
    frame.style.setProperty("--zoom", zoom.value || "1");
    scroll.scrollLeft = (stage.offsetWidth * value()) / 100 - scroll.clientWidth / 2;
    scroll.scrollTop = (stage.offsetHeight - scroll.clientHeight) / 2;
  };
  zoom.addEventListener("change", enlarge);
  enlarge();
}
