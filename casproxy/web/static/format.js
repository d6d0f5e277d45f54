// How things are shown: sizes, names, tokens, digests. Nothing here talks to anybody.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
export const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function bytes(size) {
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${unit && size < 100 ? size.toFixed(1) : Math.round(size)} ${UNITS[unit]}`;
}

export function toDigest(text) {
  const trimmed = text.trim();
  return /^[0-9a-f]{64}$/.test(trimmed) ? `sha256:${trimmed}` : trimmed;
}

export function fileName(disposition) {
  const exact = /filename\*=UTF-8''([^;]+)/.exec(disposition ?? "");
  if (exact) return decodeURIComponent(exact[1]);
  return /filename="([^"]*)"/.exec(disposition ?? "")?.[1] ?? "artifact";
}

/** What a token says of itself; null when it is none. The server checks it, this only labels it. */
export function readToken(token) {
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const { role, backend, exp } = JSON.parse(atob(payload));
    return role && backend ? { role, backend, exp } : null;
  } catch {
    return null;
  }
}

/** Draws a digest as 32 bars, one per byte: easier to tell apart at a glance than hex. */
export function drawPrint(svg, digest) {
  const hex = digest.replace("sha256:", "");
  const bars = hex.match(/../g).map((byte, index) => {
    const height = 3 + (parseInt(byte, 16) / 255) * 21;
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x: index * 4, y: (24 - height) / 2, width: 2.6, height, rx: 1 })) {
      bar.setAttribute(name, value);
    }
    return bar;
  });
  svg.replaceChildren(...bars);
}
