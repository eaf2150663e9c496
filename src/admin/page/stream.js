// The way to the daemon: server-sent events, tried again with growing pauses when they break off.

const PAUSE_MIN_MS = 1_000;
const PAUSE_MAX_MS = 30_000;
/** A snapshot comes each second; after so long without one, what is shown is old. */
const SILENCE_MAX_MS = 5_000;

/** Calls `snapshot(text)`, `trouble(words)`, and `broken(waitMs)` whenever the stream is lost. Gives a way to try at once. */
export function follow({ snapshot, trouble, broken }) {
  let source = null;
  let pause = PAUSE_MIN_MS;
  let timer = 0;
  let watchdog = 0;

  function alive() {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENCE_MAX_MS);
  }

  function lost() {
    clearTimeout(watchdog);
    clearTimeout(timer);
    source?.close();
    // Not all viewers of a daemon that comes back at the same instant.
    const wait = pause * (0.75 + Math.random() / 2);
    pause = Math.min(pause * 2, PAUSE_MAX_MS);
    timer = setTimeout(open, wait);
    broken(wait);
  }

  function open() {
    clearTimeout(timer);
    source?.close();
    source = new EventSource("events");
    source.addEventListener("snapshot", (event) => {
      pause = PAUSE_MIN_MS;
      alive();
      snapshot(event.data);
    });
    source.addEventListener("trouble", (event) => {
      alive();
      trouble(event.data);
    });
    source.addEventListener("error", lost);
    alive();
  }

  open();
  return open;
}
