// Hashes away from the page's thread: a file that is going up, or a download that is coming in.
import { Sha256 } from "/ui/sha256.js";

const BLOB_BYTES = 8 * 1024 * 1024; // what has arrived is handed to the browser in blobs, which may live on the disk
const REPORT_BYTES = 1024 * 1024;

async function hash(stream, sha256, report, keep) {
  const reader = stream.getReader();
  let size = 0;
  let reported = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return size;
    sha256.update(value);
    keep(value);
    size += value.length;
    if (size - reported >= REPORT_BYTES) {
      reported = size;
      report(size);
    }
  }
}

function blobKeeper() {
  let blobs = [];
  let parts = [];
  let held = 0;
  const flush = () => {
    blobs.push(new Blob(parts));
    parts = [];
    held = 0;
  };
  return {
    keep(part) {
      parts.push(part);
      held += part.length;
      if (held >= BLOB_BYTES) flush();
    },
    blob() {
      flush();
      return new Blob(blobs, { type: "application/octet-stream" });
    },
  };
}

async function hashFile({ file }, report) {
  const sha256 = new Sha256();
  await hash(file.stream(), sha256, report, () => {});
  return { digest: `sha256:${sha256.hex()}` };
}

async function download({ digest, token }, report) {
  const answer = await fetch(`/download/${digest}`, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
  if (!answer.ok) return { status: answer.status, problem: await answer.json().catch(() => ({})) };
  const sha256 = new Sha256();
  const kept = blobKeeper();
  let arrived = 0;
  try {
    await hash(answer.body, sha256, (size) => { arrived = size; report(size); }, kept.keep);
  } catch {
    return { broken: true, arrived };
  }
  return { digest: `sha256:${sha256.hex()}`, blob: kept.blob() };
}

self.onmessage = async ({ data }) => {
  const report = (progress) => self.postMessage({ progress });
  try {
    self.postMessage({ result: await (data.file ? hashFile(data, report) : download(data, report)) });
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};
