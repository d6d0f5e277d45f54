// The page: who may do what, what goes up, what comes down, what the server is doing.
import { DIGEST, bytes, drawPrint, readToken, toDigest } from "/ui/format.js";
import { Problem, activity, download, hashFile, lookUp, upload } from "/ui/transfer.js";

const $ = (id) => document.getElementById(id);
const tokens = new Map(); // role -> token; in this tab's memory only

// -- access ------------------------------------------------------------------------------------------

function useTokens(text) {
  const refused = [];
  for (const token of text.split(/\s+/).filter(Boolean)) {
    const said = readToken(token);
    if (said) tokens.set(said.role, token);
    else refused.push("That is not a token.");
  }
  showTokens(refused);
}

function showTokens(refused = []) {
  const chips = [...tokens].map(([role, token]) => {
    const { backend, exp } = readToken(token);
    const chip = element("li", `${role} · ${backend}${exp ? ` · until ${new Date(exp * 1000).toISOString().slice(0, 10)}` : ""}`);
    const forget = element("button", "×");
    forget.type = "button";
    forget.setAttribute("aria-label", `Forget the ${role} token`);
    forget.onclick = () => {
      tokens.delete(role);
      showTokens();
    };
    chip.append(forget);
    return chip;
  });
  const complaints = refused.map((text) => Object.assign(element("li", text), { className: "bad" }));
  $("tokens").replaceChildren(...chips, ...complaints);
}

function tokenFor(role) {
  const token = tokens.get(role);
  if (!token) {
    $("token").focus();
    throw new Problem(`This needs a token with the role ${role}. Paste one above.`);
  }
  return token;
}

$("token-form").onsubmit = (event) => {
  event.preventDefault();
  useTokens($("token").value);
  $("token").value = "";
};

// -- cards -------------------------------------------------------------------------------------------

function element(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

class Card {
  constructor(parent, name, size) {
    this.root = $("transfer-card").content.cloneNode(true).firstElementChild;
    this.part(".name").textContent = name;
    this.part(".size").textContent = size === undefined ? "" : bytes(size);
    parent.replaceChildren(this.root);
  }
  part(selector) {
    return this.root.querySelector(selector);
  }
  progress(share) {
    this.part("progress").hidden = share === null;
    if (share !== null) this.part("progress").value = share;
  }
  say(text, mood = "") {
    this.root.className = `card ${mood}`;
    this.part(".message").textContent = text;
  }
  digest(digest) {
    this.part(".digest").hidden = false;
    this.part(".digest code").textContent = digest;
    drawPrint(this.part(".print"), digest);
  }
  actions(...buttons) {
    this.part(".actions").replaceChildren(
      ...buttons.map(([text, run, quiet]) => {
        const button = Object.assign(element("button", text), { type: "button", className: quiet ? "quiet" : "" });
        button.onclick = () => run(button);
        return button;
      }),
    );
  }
  async attempt(work) {
    try {
      return await work();
    } catch (error) {
      this.progress(null);
      this.say(error instanceof Problem ? error.message : "Something unexpected went wrong in this page.", "bad");
      if (!(error instanceof Problem)) console.error(error);
      return undefined;
    }
  }
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and copy";
  }
}

// -- store -------------------------------------------------------------------------------------------

async function store(file) {
  const card = new Card($("store-result"), file.name, file.size);
  await card.attempt(async () => {
    const token = tokenFor("uploader");
    card.say("Hashing and sending…");
    const done = { sent: 0, hashed: 0 };
    const show = (part, count) => {
      done[part] = count;
      const share = file.size ? Math.min(done.sent, done.hashed) / file.size : 1;
      card.progress(share);
      card.say(`Hashing and sending… ${Math.floor(share * 100)} %`);
    };
    const [digest, stored] = await Promise.all([
      hashFile(file, (count) => show("hashed", count)),
      upload(file, token, (count) => show("sent", count)),
    ]);
    if (digest !== stored.digest) {
      throw new Problem(`The server stored other bytes than this browser read: it says ${stored.digest}, they are ${digest}.`);
    }
    card.progress(null);
    const how = stored.isNew ? "Stored and verified" : "It was stored already, and is the same";
    card.say(`✓ ${how}: this browser computed the same digest.`, "good");
    card.digest(digest);
    card.actions(
      ["Copy digest", (button) => copy(button, digest)],
      ["Look it up", () => { $("digest").value = digest; showArtifact(); }, true],
    );
  });
}

$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) store(file);
  $("file").value = "";
};
for (const kind of ["dragenter", "dragover"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) $("drop").addEventListener(kind, () => $("drop").classList.remove("over"));
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
$("drop").addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) store(file);
});

// -- fetch -------------------------------------------------------------------------------------------

async function showArtifact() {
  const digest = toDigest($("digest").value);
  const card = new Card($("fetch-result"), "");
  card.progress(null);
  await card.attempt(async () => {
    if (!DIGEST.test(digest)) throw new Problem("A digest is sha256: and 64 lower-case hex digits.");
    card.say("Looking it up…");
    const artifact = await lookUp(digest, tokenFor("downloader"));
    card.part(".name").textContent = artifact.name;
    card.part(".size").textContent = bytes(artifact.size);
    card.say("");
    card.digest(digest);
    card.actions(["Download", (button) => save(card, artifact, button)], ["Copy digest", (button) => copy(button, digest), true]);
  });
}

async function save(card, artifact, button) {
  button.disabled = true;
  card.progress(0);
  card.say("Downloading and checking…");
  await card.attempt(async () => {
    const blob = await download(artifact, tokenFor("downloader"), (arrived) => {
      card.progress(arrived / artifact.size);
      card.say(`Downloading and checking… ${bytes(arrived)} of ${bytes(artifact.size)}`);
    });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = artifact.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    card.progress(null);
    card.say("✓ Verified: the sha256 of what arrived is the digest you asked for.", "good");
  });
  button.disabled = false;
}

$("fetch-form").onsubmit = (event) => {
  event.preventDefault();
  showArtifact();
};

// -- status ------------------------------------------------------------------------------------------

const POLL_MS = 1000;
let last = null;

function showState(state, text) {
  $("status-state").dataset.state = state;
  $("status-state").textContent = text;
}

function showSpeeds(now) {
  const seconds = last ? (now.at - last.at) / 1000 : 0;
  const speed = (key) => (seconds ? `${bytes(Math.max(0, now[key] - last[key]) / seconds)}/s` : "–");
  $("status-in").textContent = speed("bytesIn");
  $("status-out").textContent = speed("bytesOut");
  last = now;
}

async function poll() {
  try {
    const now = { ...(await activity()), at: performance.now() };
    showState(now.notReady ? "not-ready" : "ready", now.notReady || "ready");
    $("status-version").textContent = now.version;
    $("status-backends").textContent = now.backends.join(", ") || "none";
    $("status-streams").textContent = now.streams;
    $("store").hidden = !now.uploads;
    showSpeeds(now);
  } catch {
    showState("gone", "unreachable");
    last = null;
  }
}

async function watch() {
  if (!document.hidden) await poll();
  setTimeout(watch, POLL_MS);
}

watch();
