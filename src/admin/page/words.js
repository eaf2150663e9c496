// Formats numbers and times, each with its unit and only significant digits.

const THIN = "\u202f";
const grouped = new Intl.NumberFormat("en-GB");

function short(number) {
  const units = ["", "k", "M", "G", "T"];
  let unit = 0;
  let rest = number;
  // 999.95 would be formatted as 1000.
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  if (unit === 0) return [String(Number(rest.toFixed(rest < 9.95 ? 1 : 0))), ""];
  return [rest.toFixed(rest < 9.995 ? 2 : rest < 99.95 ? 1 : 0), units[unit]];
}

/** Datagrams per second; a dash if unknown. */
export function rate(number) {
  if (number === null || !Number.isFinite(number)) return "–";
  const [digits, unit] = short(number);
  return unit ? `${digits}${THIN}${unit}/s` : `${digits}/s`;
}

/** A round number of datagrams per second, as on an axis. */
export function roundRate(number) {
  const [digits, unit] = short(number);
  return unit ? `${Number(digits)}${THIN}${unit}/s` : `${digits}/s`;
}

/** A count, exact up to 99,999. */
export function count(number) {
  if (number < 100_000) return grouped.format(number);
  const [digits, unit] = short(number);
  return `${digits}${THIN}${unit}`;
}

/** A count, exact. */
export function exact(number) {
  return grouped.format(number);
}

/** A time span in its two largest units. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}${THIN}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole < 600 && whole % 60 ? `${minutes}${THIN}min ${whole % 60}${THIN}s` : `${minutes}${THIN}min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}${THIN}h ${minutes % 60}${THIN}min`;
  return `${Math.floor(hours / 24)}${THIN}d ${hours % 24}${THIN}h`;
}

/** "1 route", "2 routes". */
export function plural(number, noun) {
  return `${grouped.format(number)} ${noun}${number === 1 ? "" : "s"}`;
}
