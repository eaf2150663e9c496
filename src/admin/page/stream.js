// The connection to the daemon: server-sent events, with growing pauses between attempts to connect.

const PAUSE_MIN_MS = 1_000;
const PAUSE_MAX_MS = 30_000;
/** Time without a snapshot after which the picture counts as old; normally one comes each second. */
const SILENCE_MAX_MS = 5_000;

/**
 * Calls `snapshot(text)`, `trouble(words)`, and `broken(waitMs)` when the stream is lost. Returns a function that
 * reconnects at once.
 */
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
    // Viewers must not all reconnect to a restarted daemon at the same moment.
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
