// What moves in a cell while something runs. Python draws the HTML; the clocks and bars in it go on
// by themselves here, so that the kernel need not speak every second:
//   <span data-clock='{"elapsed": 42, "expected": 170, "speed": 1}'>, or {"left": 170, "speed": 1}
//   <progress value="25" data-next="31" data-in="10">: its value in so many seconds
const SILENT = 25; // seconds without a word of the kernel after which nothing is counted on

const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

const words = ({ elapsed, expected, left, speed = 1 }, passed) => {
  const now = (elapsed ?? 0) + passed * speed;
  if (left !== undefined) {
    const rest = left - passed * speed;
    return rest >= 1 ? `about ${clock(rest)} left` : "any moment now";
  }
  if (expected === undefined) return `${clock(now)} so far`;
  return `${clock(now)}${now > expected ? ", usually" : " of"} about ${clock(expected)}`;
};

const make = (tag, className, parent) => {
  const made = document.createElement(tag);
  made.className = className;
  parent.append(made);
  return made;
};

export default () => {
  let heard = Date.now(); // by all views of the model
  let ended = false; // the kernel

  const render = ({ model, el }) => {
    const root = make("div", "kling-live", el);
    const said = make("span", "kling-said", root); // what a screen reader says, once
    said.setAttribute("role", "status");
    const main = make("div", "kling-main", root);
    const button = make("button", "kling-button", root);
    button.type = "button";
    const silence = make("div", "kling-silence", root);
    const extra = make("div", "kling-extra", root);
    let player = null;
    let due = false;

    const set = (element, html) => {
      if (element.drawn !== html) element.innerHTML = element.drawn = html;
    };

    const tick = () => {
      const passed = (Date.now() - heard) / 1000;
      const live = model.get("live");
      if (live && !ended && passed < SILENT) {
        for (const each of main.querySelectorAll("[data-clock]")) {
          each.textContent = words(JSON.parse(each.dataset.clock), passed);
        }
        for (const bar of main.querySelectorAll("progress[data-next]")) {
          bar.first ??= Number(bar.getAttribute("value"));
          const part = Math.min(1, passed / Number(bar.dataset.in));
          bar.value = bar.first + part * (Number(bar.dataset.next) - bar.first);
        }
      }
      button.disabled = ended;
      silence.textContent = !live
        ? ""
        : ended
          ? "The kernel has ended. Run the cell again to go on; nothing is paid twice."
          : passed >= SILENT
            ? `No word from the kernel for ${clock(passed)}.`
            : "";
    };

    const draw = () => {
      due = false;
      set(main, model.get("html"));
      set(extra, model.get("extra"));
      button.textContent = model.get("button");
      button.title = model.get("button_title");
      button.hidden = !model.get("button") || player !== null;
      if (said.textContent !== model.get("spoken")) said.textContent = model.get("spoken");
      tick();
    };

    const changed = () => {
      if (!due) queueMicrotask(draw); // once for all that a message changes
      due = true;
    };

    const received = (message, buffers) => {
      if (message?.video === undefined || player) return;
      player = make("video", "kling-player", root);
      player.controls = true;
      player.ariaLabel = message.video;
      player.style.maxWidth = `${message.width}px`;
      player.src = URL.createObjectURL(new Blob([buffers[0]], { type: "video/mp4" }));
      extra.hidden = true;
      draw();
    };

    button.addEventListener("click", () => model.send({ pressed: model.get("button") }));
    model.on("change:sent", changed);
    model.on("comm_live_update", changed);
    model.on("msg:custom", received);
    const timer = setInterval(tick, 1000);
    draw();
    return () => {
      clearInterval(timer);
      model.off("change:sent", changed);
      model.off("comm_live_update", changed);
      model.off("msg:custom", received);
      if (player) URL.revokeObjectURL(player.src);
    };
  };

  const initialize = ({ model }) => {
    const spoke = () => {
      heard = Date.now();
      ended = false;
    };
    const lost = () => {
      ended = true; // ipywidgets says so when the kernel restarts
    };
    model.on("change:sent", spoke);
    model.on("comm_live_update", lost);
    return () => {
      model.off("change:sent", spoke);
      model.off("comm_live_update", lost);
    };
  };

  return { initialize, render };
};
