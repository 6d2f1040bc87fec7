for (const viewer of document.querySelectorAll(".viewer")) {
  // The maps beneath can be chosen too; the file holds each of them once.
  for (const map of viewer.parentElement.querySelectorAll(".maps img")) {
    const side = map.cloneNode();
    side.className = "side";
    side.draggable = false;
    viewer.querySelector(".divider").before(side);
    const number = viewer.querySelectorAll(".side").length - 1;
    for (const select of viewer.querySelectorAll(".choose")) select.add(new Option(map.alt, number));
  }
  setUpViewer(viewer);
}
