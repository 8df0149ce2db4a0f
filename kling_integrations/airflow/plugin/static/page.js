// Theme, posters that load when they are seen, and pages that look again while a task waits.
// Without this script the videos play and the pages are readable all the same.
"use strict";

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// Airflow's own page, around this one, knows whether it is light or dark.
function followTheme() {
  let outer = null;
  try {
    outer = window.parent !== window ? window.parent.document.documentElement : null;
  } catch { /* another origin: the system's preference stays */ }
  if (!outer) return;
  const take = () => {
    const dark = outer.classList.contains("dark") || outer.style.colorScheme === "dark";
    document.documentElement.classList.toggle("dark", dark);
    document.documentElement.classList.toggle("light", !dark);
  };
  take();
  new MutationObserver(take).observe(outer, { attributes: true });
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.poster = entry.target.dataset.poster;
    seen.unobserve(entry.target);
  }
});

function prepare(root) {
  for (const video of root.querySelectorAll("video")) {
    if (video.dataset.poster) seen.observe(video);
    video.addEventListener("error", () => {
      const words = video.parentElement.querySelector(".trouble");
      if (words) words.hidden = false;
    });
  }
}

function tick() {
  for (const wait of document.querySelectorAll(".wait")) {
    const { since, expected, speed } = wait.dataset;
    const elapsed = Math.max(0, Date.now() / 1000 - since) * speed;
    const part = elapsed / expected;
    const straight = Math.min(part, 1);
    const beyond = Math.max(0, part - 1);
    wait.querySelector("progress").value = 0.95 - (0.95 - 0.8 * straight) * Math.exp(-5 * beyond);
    if (part <= 1) wait.querySelector("progress").value = 0.8 * straight;
    wait.querySelector(".pace").textContent = part > 1
      ? `${clock(elapsed)}, usually about ${clock(expected)}`
      : `${clock(elapsed)} of about ${clock(expected)}`;
  }
}

// What has not changed stays as it is, so that a video that plays goes on playing.
function merge(fresh) {
  const old = [...document.querySelectorAll("article")];
  const now = [...fresh.querySelectorAll("article")];
  const main = document.querySelector("main");
  main.dataset.live = fresh.dataset.live;
  if (old.length !== now.length) {
    main.innerHTML = fresh.innerHTML;
    prepare(main);
    return;
  }
  now.forEach((article, index) => {
    const changed = article.dataset.state !== old[index].dataset.state
      || (old[index].querySelector("video") === null && article.outerHTML !== old[index].outerHTML);
    if (!changed) return;
    old[index].replaceWith(article);
    prepare(article);
  });
}

async function lookAgain() {
  if (document.querySelector("main").dataset.live !== "yes" || document.hidden) return;
  try {
    const reply = await fetch(location.href, { credentials: "same-origin" });
    if (!reply.ok) return;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    merge(document.importNode(page.querySelector("main"), true));
    tick();
  } catch { /* the server is away: the next look may find it */ }
}

followTheme();
prepare(document);
tick();
setInterval(tick, 1000);
setInterval(lookAgain, 4000);
