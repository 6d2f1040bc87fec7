"use strict";

const ID = (id) => document.getElementById(id);
const POLL = { busy: 400, idle: 15000 }; // milliseconds
const SUFFIXES = document.body.dataset.suffixes.split(" ");
const MAX_FILE = Number(document.body.dataset.maxFileMb) * 1e6; // bytes

let pictures = []; // as the server describes them
let adaptation = null; // the last one
let adapted = null; // the model that can be used: its number, and what it was made from
let selected = null; // id of the picture that is shown
let written = null; // the settings of the last batch, as text
let uploads = 0; // how many are under way

// Messages

const say = (text) => {
  const line = document.createElement("p");
  const close = document.createElement("button");
  line.append(text, close);
  close.textContent = "×";
  close.ariaLabel = "Dismiss";
  close.addEventListener("click", () => line.remove());
  ID("messages").append(line);
  return line;
};

// Requests

const ask = async (method, address, body) => {
  const options = { method, body: body && JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer: is it still running?");
  }
  const found = await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(found?.error ?? `The server answers ${answer.status}.`);
  return found;
};

// Does something that the server may refuse, then shows how things are.
const attempt = async (action) => {
  try {
    await action();
  } catch (error) {
    say(error.message);
  }
  await refresh();
};

let timer = null;
let trouble = null; // the message that is shown while the state cannot be had
const refresh = async () => {
  clearTimeout(timer);
  try {
    ({ pictures, adaptation, adapted } = await ask("GET", "/api/state"));
    trouble?.remove();
    trouble = null;
    render();
  } catch (error) {
    if (trouble?.firstChild.textContent !== error.message) {
      trouble?.remove();
      trouble = say(error.message);
    }
  }
  const isBusy = uploads || adaptation?.share != null || pictures.some((each) => each.share != null);
  clearTimeout(timer);
  timer = setTimeout(refresh, isBusy && !trouble ? POLL.busy : POLL.idle);
};

// Settings

const quality = () => ID("quality").value;
const how = () => ({
  quality: quality(),
  adapted: adapted && ID("adapted").checked ? adapted.number : 0,
  uncertainty: ID("uncertainty").checked,
});
const output = () => ({
  strength: Number(ID("strength").value),
  color_strength: ID("color-same").checked ? null : Number(ID("color").value),
  format: ID("format").value,
});
const isAsWanted = (picture) => {
  const wanted = how();
  return picture.result && Object.keys(wanted).every((key) => picture.result[key] === wanted[key]);
};

// Denoises a picture, unless it is as wanted already.
const want = async (id) => {
  const picture = pictures.find((each) => each.id === id);
  if (!picture || isAsWanted(picture)) return;
  await attempt(() => ask("POST", `/api/pictures/${id}/denoise`, how()));
};

// Does so after the settings have changed, also in the place of what is being done.
const wantChanged = async () => {
  const picture = pictures.find((each) => each.id === selected);
  if (picture?.share != null) await attempt(() => ask("POST", `/api/pictures/${selected}/denoise`, how()));
  else await want(selected);
};

// A reload keeps the settings.
const KEPT = ["quality", "uncertainty", "strength", "color", "color-same", "format", "adapted"];
const keep = () => {
  const values = KEPT.map((id) => (ID(id).type === "checkbox" ? ID(id).checked : ID(id).value));
  sessionStorage.setItem("settings", JSON.stringify([values, adapted?.number ?? 0, written]));
};
const recall = () => {
  const [values, number, text] = JSON.parse(sessionStorage.getItem("settings") ?? "[[], 0, null]");
  values.forEach((value, place) => {
    const input = ID(KEPT[place]);
    const isOffered = !input.options || [...input.options].some((each) => each.value === value);
    if (input.type === "checkbox") input.checked = value;
    else if (isOffered) input.value = value;
  });
  written = text;
  return number;
};

// Uploads

const upload = (file) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // which tells how much is sent, unlike fetch
    request.open("POST", `/api/pictures?name=${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    request.upload.addEventListener("progress", ({ loaded, total }) => {
      ID("summary").textContent = `Sending ${file.name}: ${Math.round((100 * loaded) / total)} %`;
    });
    request.addEventListener("load", () => {
      if (request.status === 201) resolve(request.response);
      else reject(new Error(request.response?.error ?? `The server answers ${request.status}.`));
    });
    request.addEventListener("error", () =>
      reject(new Error(`${file.name} could not be sent: is the server still running?`)),
    );
    request.send(file);
  });

// Names that begin with a dot are those of notes that macOS makes.
const isPicture = ({ name }) =>
  !name.startsWith(".") && SUFFIXES.some((suffix) => name.toLowerCase().endsWith(suffix));

// Sends files one after the other; of a folder, only those that are pictures by name.
const add = async (files, isFolder) => {
  const taken = isFolder ? files.filter(isPicture) : files;
  if (isFolder && !taken.length) say("There are no pictures in this folder.");
  ID("all").hidden = false;
  uploads++;
  for (const file of taken) {
    if (file.size > MAX_FILE) {
      say(`${file.name} is larger than ${MAX_FILE / 1e6} MB, the most that this server takes.`);
      continue;
    }
    try {
      const picture = await upload(file);
      if (!selected) {
        await refresh();
        select(picture.id);
      }
    } catch (error) {
      say(error.message);
    }
  }
  uploads--;
  await refresh();
};

// The files of a folder that was dropped, and of those in it.
const filesIn = async (entry) => {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // It returns some at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const each of some) found.push(...(await filesIn(each)));
  }
};

const drop = async (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  for (const entry of entries) {
    try {
      await add(await filesIn(entry), entry.isDirectory);
    } catch (error) {
      say(`${entry.name} cannot be read: ${error.message}`);
    }
  }
};

// The list

const items = new Map();

const newItem = (id) => {
  const item = document.createElement("li");
  item.innerHTML =
    '<img class="thumbnail" alt=""><button class="name"></button>' +
    '<button class="remove" aria-label="Remove">×</button>' +
    '<div class="status"><span></span><progress max="1" hidden></progress></div>';
  item.addEventListener("click", () => select(id));
  item.querySelector(".remove").addEventListener("click", (event) => {
    event.stopPropagation();
    attempt(() => ask("DELETE", `/api/pictures/${id}`));
  });
  return item;
};

const stateOf = (picture) => {
  if (picture.state === "waiting") {
    const others = picture.place > 1 ? `, ${picture.place} before it` : "";
    return `waiting${others}`;
  }
  if (picture.state === "working") {
    if (picture.is_measured) return "its noise is being measured";
    return picture.share > 0 ? `${Math.round(100 * picture.share)} %` : "starting";
  }
  if (picture.state === "failed") return picture.error;
  if (picture.state !== "done") return "not denoised";
  const { result } = picture;
  if (!result || isAsWanted(picture)) return "denoised";
  const parts = [`quality ${result.quality}`];
  if (result.adapted) parts.push("an adapted model");
  if (result.uncertainty) parts.push("uncertainty");
  return `denoised with ${parts.join(", ")}`;
};

const tileAddress = (picture, view, more = "") => (level, x, y) =>
  `/api/pictures/${picture.id}/tiles/${view}/${level}/${x}/${y}.png?${picture.number}${more}`;

const showShare = (bar, share) => {
  bar.hidden = share == null;
  if (share > 0) bar.value = share;
  else bar.removeAttribute("value"); // it moves until there is something to show
};

const renderItem = (picture) => {
  if (!items.has(picture.id)) items.set(picture.id, newItem(picture.id));
  const item = items.get(picture.id);
  const [name, status, bar, thumbnail] = [".name", ".status span", "progress", ".thumbnail"].map(
    (selector) => item.querySelector(selector),
  );
  name.textContent = name.title = picture.name;
  status.textContent = stateOf(picture);
  showShare(bar, picture.state === "working" ? picture.share : null);
  item.classList.toggle("failed", picture.state === "failed");
  item.ariaCurrent = String(picture.id === selected);
  if (picture.levels) {
    const address = tileAddress(picture, "noisy")(picture.levels - 1, 0, 0);
    if (thumbnail.getAttribute("src") !== address) thumbnail.src = address;
  }
  return item;
};

const renderList = () => {
  const list = ID("list");
  pictures.forEach((picture, place) => {
    const item = renderItem(picture);
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  while (list.children.length > pictures.length) list.lastChild.remove();
  const ids = new Set(pictures.map((picture) => picture.id));
  for (const id of items.keys()) if (!ids.has(id)) items.delete(id);

  const count = pictures.length;
  const of = (state) => pictures.filter((picture) => picture.state === state).length;
  const waiting = of("waiting") + of("working");
  const finals = pictures.filter((picture) => picture.final).length;
  ID("all").hidden = !count && !uploads;
  if (!uploads) {
    const parts = [`${count} picture${count === 1 ? "" : "s"}`];
    if (finals) parts.push(`${finals} in the ZIP file`);
    if (of("failed")) parts.push(`${of("failed")} failed`);
    if (waiting) parts.push(`${waiting} to do`);
    ID("summary").textContent = parts.join(", ");
  }
  showShare(ID("progress"), waiting && count > 1 ? 1 - waiting / count : null);
  ID("denoise-all").textContent = `Denoise all ${count}`;
  ID("denoise-all").hidden = count < 2 && !finals;
  ID("denoise-all").disabled = uploads > 0;
  ID("cancel-all").hidden = !waiting;
  ID("archive").hidden = !finals || waiting > 0;
  ID("archive-note").hidden = !finals || written === null || written === settingsText();
  ID("archive-note").textContent = "The ZIP file has the settings of before: denoise all again to change that.";
};

const settingsText = () => JSON.stringify([how(), output()]);

// The picture that is shown

const viewer = document.querySelector(".viewer");
const layers = [...viewer.querySelectorAll(".layer")].map((element) => {
  const side = element.closest(".side");
  return { side, view: element.dataset.view ?? side.dataset.view, tiles: new Tiles(element) };
});
let shown = null; // which views of which picture the tiles are of

const select = (id) => {
  selected = id;
  render();
  want(id);
};

const showTiles = (picture) => {
  const gain = ID("gain").value;
  const now = JSON.stringify([picture.id, picture.number, picture.views, gain]);
  if (now === shown) return;
  shown = now;
  const [width, height] = picture.size;
  ID("view").style.setProperty("--width", width);
  ID("view").style.setProperty("--height", height);
  for (const { view, tiles } of layers) {
    const needed = view === "removed" ? "denoised" : view;
    const address = tileAddress(picture, view, view === "removed" ? `&gain=${gain}` : "");
    const there = picture.views.includes(needed);
    tiles.show(there ? { size: picture.size, levels: picture.levels, address } : null);
  }
  for (const select of viewer.querySelectorAll(".choose")) {
    [...select.options].forEach((option) => {
      const needed = option.text === "removed" ? "denoised" : option.text;
      option.disabled = !picture.views.includes(needed) && needed !== "denoised";
      if (option.disabled && option.selected) {
        select.value = select.dataset.end === "left" ? "0" : "1";
        select.dispatchEvent(new Event("change"));
      }
    });
  }
  updateTiles();
};

const updateTiles = () => {
  const picture = pictures.find((each) => each.id === selected);
  if (!picture?.size || ID("work").hidden) return;
  const scroll = ID("scroll");
  const stage = ID("stage");
  const [width, height] = [stage.offsetWidth, stage.offsetHeight];
  if (!width || !height) return;
  const seen = {
    left: scroll.scrollLeft / width,
    right: (scroll.scrollLeft + scroll.clientWidth) / width,
    top: scroll.scrollTop / height,
    bottom: (scroll.scrollTop + scroll.clientHeight) / height,
  };
  const scale = (width / picture.size[0]) * devicePixelRatio;
  for (const { side, tiles } of layers) {
    if (side.classList.contains("left") || side.classList.contains("right")) tiles.update(seen, scale);
  }
  for (const select of viewer.querySelectorAll(".choose")) {
    const label = select.selectedOptions[0].text;
    const isMissing = label === "denoised" && !picture.views.includes("denoised");
    viewer.querySelector(".frame").dataset[select.dataset.end] = isMissing ? "not denoised yet" : label;
  }
  const isRemoved = [...viewer.querySelectorAll(".choose")].some(
    (each) => each.selectedOptions[0].text === "removed",
  );
  ID("gain-label").hidden = !isRemoved;
  const isSure = [...viewer.querySelectorAll(".choose")].some(
    (each) => each.selectedOptions[0].text === "uncertainty",
  );
  const legend = [];
  if (isRemoved) {
    legend.push("Removed: noisy − denoised around middle gray. It should be noise alone.");
  }
  if (isSure && picture.heat_peak) {
    legend.push(
      "Uncertainty: standard deviation of the error at full strength, from black (0) to yellow " +
        `(${picture.heat_peak} of 255 and above).`,
    );
  }
  ID("legend").textContent = legend.join(" ");
};

const showStrength = () => {
  const { strength, color_strength: color } = output();
  const percent = (share) => `${Math.round(100 * share)} %`;
  ID("color").disabled = color === null;
  if (color === null) ID("color").value = strength;
  ID("strength-value").value = percent(strength);
  ID("color-value").value = percent(color ?? strength);
  const stage = ID("stage");
  stage.style.setProperty("--strength", strength);
  stage.style.setProperty("--color", color ?? strength);
  stage.classList.toggle("two-strengths", color !== null && color !== strength);
  renderLinks();
  renderList();
  keep();
};

const renderLinks = () => {
  const picture = pictures.find((each) => each.id === selected);
  const isDone = Boolean(picture?.result) && picture.share == null;
  ID("result").hidden = !isDone;
  ID("sigma").hidden = !isDone || !picture.views.includes("uncertainty");
  if (!isDone) return;
  const { strength, color_strength: color, format } = output();
  const query = new URLSearchParams({ strength, color_strength: color ?? "", format });
  ID("result").href = `/api/pictures/${picture.id}/result?${query}`;
  ID("sigma").href = `/api/pictures/${picture.id}/uncertainty`;
};

const renderTexts = (element, texts) => {
  const text = JSON.stringify(texts);
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.replaceChildren(
    ...texts.map((text) => {
      const line = document.createElement("li");
      line.textContent = text;
      return line;
    }),
  );
};

const renderPicture = (picture) => {
  const megapixels = (picture.width * picture.height) / 1e6;
  const size = megapixels < 0.1 ? "" : ` (${megapixels.toFixed(1)} megapixels)`;
  ID("name").textContent = picture.name;
  ID("state").textContent = `${picture.width} × ${picture.height} px${size}, ${stateOf(picture)}`;
  showShare(ID("share"), picture.share);
  ID("denoise").hidden = picture.share != null || Boolean(isAsWanted(picture));
  ID("cancel").hidden = picture.share == null;
  renderTexts(ID("notes"), picture.notes);
  viewer.hidden = !picture.size;
  if (picture.size) showTiles(picture);
  renderNoise(picture);
};

const renderNoise = ({ id, noise, share }) => {
  ID("report-noise").disabled = share != null;
  ID("noise-lines").hidden = !noise;
  ID("noise-figure").hidden = !noise?.figure;
  if (!noise) return;
  renderReport(ID("noise-lines"), noise.lines);
  const address = `/api/pictures/${id}/noise.png`;
  if (noise.figure && ID("noise-figure").getAttribute("src") !== address) {
    ID("noise-figure").src = ID("noise-link").href = address;
  }
};

// Sentences are paragraphs; lines of tables, which have spaces between columns, stay as they are.
const renderReport = (element, lines) => {
  const text = lines.join("\n");
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.replaceChildren();
  for (const line of lines) {
    const isTable = /\S {2,}/.test(line) || /^ {2,}/.test(line);
    const last = element.lastElementChild;
    if (isTable && last?.tagName === "PRE") {
      last.textContent += `\n${line}`;
    } else if (line) {
      const part = document.createElement(isTable ? "pre" : "p");
      part.textContent = line;
      element.append(part);
    } else {
      element.append(document.createElement("br"));
    }
  }
};

const renderAdaptation = () => {
  const isBusy = adaptation?.share != null;
  ID("adapt").disabled = isBusy || !pictures.length;
  ID("cancel-adapting").hidden = !isBusy;
  showShare(ID("adapt-share"), isBusy ? adaptation.share : null);
  if (!adaptation) return;
  const texts = {
    waiting: `Waiting${adaptation.place > 1 ? `, ${adaptation.place} before it` : ""}.`,
    working: `Adapting, ${Math.round(100 * (adaptation.share ?? 0))} % of ${adaptation.minutes} minutes.`,
    done: adaptation.has_changed ? "Done." : "That did not help, so the model is as it was.",
    cancelled: "Cancelled.",
    failed: adaptation.error,
  };
  ID("adapt-state").textContent = texts[adaptation.state];
  renderTexts(ID("adapt-lines"), isBusy ? [] : adaptation.lines);
};

let usedBefore = null; // number of the adapted model that the page knows
const renderAdapted = () => {
  ID("adapted-label").hidden = !adapted;
  if (!adapted) return;
  ID("adapted-from").textContent = adapted.quality;
  if (usedBefore !== adapted.number) {
    usedBefore = adapted.number;
    ID("adapted").checked = true;
    keep();
    wantChanged();
  }
};

const render = () => {
  if (!pictures.some((picture) => picture.id === selected)) selected = pictures[0]?.id ?? null;
  renderList();
  const picture = pictures.find((each) => each.id === selected);
  ID("work").hidden = !picture;
  if (picture) renderPicture(picture);
  renderLinks();
  renderAdaptation();
  renderAdapted();
};

// Events

for (const input of [ID("files"), ID("folder")]) {
  input.addEventListener("change", () => {
    add([...input.files], input === ID("folder"));
    input.value = "";
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", drop);

for (const id of ["quality", "uncertainty", "adapted"]) {
  ID(id).addEventListener("change", () => {
    render();
    keep();
    wantChanged();
  });
}
for (const id of ["strength", "color", "color-same"]) ID(id).addEventListener("input", showStrength);
ID("format").addEventListener("change", () => {
  render();
  keep();
});
ID("gain").addEventListener("change", render);
ID("denoise").addEventListener("click", () => want(selected));
ID("cancel").addEventListener("click", () =>
  attempt(() => ask("POST", `/api/pictures/${selected}/cancel`)),
);
// What the file could not hold is known once it is written.
ID("result").addEventListener("click", () => {
  clearTimeout(timer);
  timer = setTimeout(refresh, 1000);
});
ID("denoise-all").addEventListener("click", () =>
  attempt(async () => {
    await ask("POST", "/api/batch", { ...how(), ...output() });
    written = settingsText();
    keep();
  }),
);
ID("cancel-all").addEventListener("click", () => attempt(() => ask("POST", "/api/cancel")));
ID("remove-all").addEventListener("click", () => {
  const what = "Remove all pictures and results from this page? Your own files stay.";
  if (confirm(what)) attempt(() => ask("DELETE", "/api/pictures"));
});
ID("adapt").addEventListener("click", () =>
  attempt(() => ask("POST", "/api/adapt", { ...how(), minutes: ID("minutes").valueAsNumber })),
);
ID("cancel-adapting").addEventListener("click", () => attempt(() => ask("POST", "/api/adapt/cancel")));
ID("report-noise").addEventListener("click", () =>
  attempt(() => ask("POST", `/api/pictures/${selected}/noise`, {})),
);

viewer.addEventListener("viewchange", updateTiles);
ID("scroll").addEventListener("scroll", updateTiles, { passive: true });
new ResizeObserver(updateTiles).observe(ID("scroll"));
setUpViewer(viewer);
usedBefore = recall();
showStrength();
refresh();
