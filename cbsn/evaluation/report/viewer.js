"use strict";

// Makes a viewer work: the divider, the choice of its two sides, and the zoom. Sides are elements of
// the class "side", in the order of the options. When a large picture is scrolled, the divider stays
// in sight. Fires "viewchange" after a choice or a zoom.
const setUpViewer = (viewer) => {
  const frame = viewer.querySelector(".frame");
  const stage = viewer.querySelector(".stage");
  const divider = viewer.querySelector(".divider");
  const scroll = viewer.querySelector(".scroll");
  const zoom = viewer.querySelector(".zoom");
  const sides = [...viewer.querySelectorAll(".side")];

  const selects = viewer.querySelectorAll(".choose");
  const changed = () => viewer.dispatchEvent(new Event("viewchange"));

  const value = () => parseFloat(stage.style.getPropertyValue("--split") || "50");
  const place = () => (stage.offsetWidth * value()) / 100 - scroll.scrollLeft; // px from the left
  let kept = null; // the place where it stays in sight when the picture is scrolled
  const moveTo = (percent, isScrolled = false) => {
    const value = Math.min(100, Math.max(0, percent));
    stage.style.setProperty("--split", `${value}%`);
    divider.setAttribute("aria-valuenow", Math.round(value));
    if (!isScrolled) kept = place();
  };
  const stay = () => {
    const middle = zoom.value ? `${scroll.scrollTop + scroll.clientHeight / 2}px` : "50%";
    stage.style.setProperty("--middle", middle);
    if (kept !== null && stage.offsetWidth) moveTo((100 * (scroll.scrollLeft + kept)) / stage.offsetWidth, true);
  };
  scroll.addEventListener("scroll", stay, { passive: true });

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
      changed();
    };
    select.addEventListener("change", choose);
    choose(); // A browser that goes back to the page restores the choice, not what it did.
  }

  const enlarge = () => {
    frame.classList.toggle("zoomed", zoom.value !== "");
    frame.style.setProperty("--zoom", zoom.value || "1");
    kept = null; // not while it moves
    scroll.scrollLeft = (stage.offsetWidth * value()) / 100 - scroll.clientWidth / 2;
    scroll.scrollTop = (stage.offsetHeight - scroll.clientHeight) / 2;
    if (stage.offsetWidth) kept = place(); // else nothing is shown yet
    stay();
    changed();
  };
  zoom.addEventListener("change", enlarge);
  enlarge();
};
