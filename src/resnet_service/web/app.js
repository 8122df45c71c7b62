// Sends the chosen or dropped picture to /predict and shows the most probable classes.

const $ = (id) => document.getElementById(id);

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function preview(file) {
  URL.revokeObjectURL($("preview").src);
  $("preview").src = URL.createObjectURL(file);
  $("preview").alt = file.name;
  $("preview").hidden = false;
  $("hint").hidden = true;
}

function bar({ label, score }) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const percent = document.createElement("span");
  const meter = document.createElement("meter");
  name.textContent = label;
  percent.textContent = `${(100 * score).toFixed(1)} %`;
  meter.value = score;
  meter.setAttribute("aria-label", `${label}: ${percent.textContent}`);
  item.append(name, percent, meter);
  return item;
}

// What the browser cannot show, the service may still know, or say what is wrong with it.
$("preview").addEventListener("error", () => {
  $("preview").hidden = true;
  $("hint").hidden = false;
});

async function classify(file) {
  preview(file);
  $("predictions").replaceChildren();
  say("Looking …");
  const form = new FormData();
  form.append("file", file);
  try {
    const response = await fetch("predict", { method: "POST", body: form });
    const answer = await response.json();
    if (!response.ok) {
      say(answer.detail, true);
      return;
    }
    $("predictions").replaceChildren(...answer.predictions.map(bar));
    say(`${answer.image.width} × ${answer.image.height} ${answer.image.format}, ${answer.timing_ms.total.toFixed(0)} ms`);
  } catch {
    say("The service did not answer. Is it still running?", true);
  }
}

async function showModel() {
  const response = await fetch("metadata");
  if (response.ok) {
    const { model, metadata } = await response.json();
    const source = metadata.provenance ? `, weights from ${metadata.provenance.source}` : "";
    $("model").textContent = `Model: ${model.name} (${model.arch}, version ${model.version})${source}`;
  }
}

$("file").addEventListener("change", () => {
  if ($("file").files.length > 0) classify($("file").files[0]);
});
$("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files.length > 0) classify(event.dataTransfer.files[0]);
});
showModel();
