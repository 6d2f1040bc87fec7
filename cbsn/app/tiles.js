"use strict";

const TILE = Number(document.body.dataset.tile);

// Shows a picture in an element, tile by tile: those that are in sight, at the size that fits the
// zoom. Beneath them lies the whole picture at its smallest size.
class Tiles {
  constructor(element) {
    this.element = element;
    this.images = new Map();
    this.picture = null;
  }

  // `picture` has the size at full zoom, the number of levels, and `address(level, x, y)` of tiles.
  show(picture) {
    this.picture = picture;
    this.images.clear();
    this.element.replaceChildren();
  }

  // Loads what is in sight: `seen` has its corners as shares of the whole, `scale` is the number of
  // pixels of the screen that a pixel of the picture takes.
  update(seen, scale) {
    if (!this.picture) return;
    const { levels } = this.picture;
    const level = Math.min(levels - 1, Math.max(0, Math.floor(Math.log2(1 / scale))));
    const wanted = new Set([this.add(levels - 1, 0, 0)]);
    const [across, down] = this.count(level);
    const from = (share, count) => Math.max(0, Math.floor(share * count));
    const to = (share, count) => Math.min(Math.ceil(count), Math.ceil(share * count));
    for (let y = from(seen.top, down); y < to(seen.bottom, down); y++) {
      for (let x = from(seen.left, across); x < to(seen.right, across); x++) {
        wanted.add(this.add(level, x, y));
      }
    }
    // The others go when these are there, so that nothing flickers.
    const loading = [...wanted].map((key) => this.images.get(key).decode().catch(() => {}));
    const latest = (this.latest = Promise.all(loading).then(() => {
      if (this.latest !== latest) return;
      for (const [key, image] of this.images) {
        if (wanted.has(key)) continue;
        image.remove();
        this.images.delete(key);
      }
    }));
  }

  // How many tiles a level has, with fractions.
  count(level) {
    return this.picture.size.map((side) => Math.ceil(side / 2 ** level) / TILE);
  }

  add(level, x, y) {
    const key = `${level}/${x}/${y}`;
    if (this.images.has(key)) return key;
    const image = new Image();
    const [across, down] = this.count(level);
    image.alt = "";
    image.draggable = false;
    image.style.left = `${(100 * x) / across}%`;
    image.style.top = `${(100 * y) / down}%`;
    image.style.width = `${(100 * Math.min(1, across - x)) / across}%`;
    image.style.height = `${(100 * Math.min(1, down - y)) / down}%`;
    image.style.zIndex = this.picture.levels - level;
    image.src = this.picture.address(level, x, y);
    this.images.set(key, image);
    this.element.append(image);
    return key;
  }
}
