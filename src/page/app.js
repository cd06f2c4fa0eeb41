"use strict";

// Elements marked data-live are replaced by those of the same page, loaded anew.
async function refresh() {
  const answer = await fetch(location.href, { redirect: "error" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const parts = [...fresh.querySelectorAll("[data-live]")];
  // Another set of parts is another page: the daemon was started, or stopped.
  if (parts.map((part) => part.id).join() !== [...document.querySelectorAll("[data-live]")].map((part) => part.id).join()) {
    location.reload();
    return;
  }
  for (const part of parts) {
    const old = document.getElementById(part.id);
    if (old.isEqualNode(part)) continue;
    if (old instanceof HTMLImageElement) {
      const source = part.getAttribute("src");
      if (source === null) old.removeAttribute("src");
      else old.setAttribute("src", source);
      old.alt = part.alt;
    } else {
      old.replaceWith(document.adoptNode(part));
    }
  }
}

async function live() {
  for (;;) {
    await new Promise((done) => setTimeout(done, 1000));
    if (document.hidden) continue;
    try {
      await refresh();
      document.body.classList.remove("stale");
    } catch {
      document.body.classList.add("stale");
    }
  }
}

// The slider goes over the rows of the table, whose counts the server has made.
function threshold(slider) {
  const rows = [...document.querySelectorAll("#rungs tr")];
  const number = document.getElementById("threshold");
  slider.hidden = false;
  slider.addEventListener("input", () => {
    const { p, events } = rows[slider.value].dataset;
    number.value = p;
    for (const id of ["chosen", "line", "command"]) {
      const shown = document.getElementById(id);
      if (shown) shown.textContent = p;
    }
    document.getElementById("count").textContent = events;
    const value = document.getElementById("value");
    if (value) value.value = p;
  });
}

if (document.querySelector("[data-live]")) live();
const slider = document.getElementById("slider");
if (slider) threshold(slider);
