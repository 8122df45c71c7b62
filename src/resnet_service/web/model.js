// The current model: name, accuracy, source, and since when it is served.

import { facts } from "./api.js";
import { element } from "./results.js";
import { accuracyPercent, count, language, moment, sizes, words } from "./translations.js";

export function renderModel() {
  if (facts === null) return;
  const { model, metadata, precision, serving_since: since, limits, class_summary: classes } = facts;
  const provenance = metadata.provenance;
  const rows = [
    ["name", words("model.name.is", { ...model, precision: precision.toUpperCase() })],
    ["accuracy", accuracy(metadata)],
    ["classes", count(metadata.num_classes)],
    ["since", moment(since)],
    ["version", model.version],
  ];
  if (provenance) rows.splice(2, 0, ["weights", [provenance.source, provenance.licence].filter(Boolean).join(", ")]);
  const list = document.querySelector("#model dl");
  list.replaceChildren(
    ...rows.map(([name, text]) => {
      const row = element("div");
      row.append(element("dt", "", words(`model.${name}`)), element("dd", "", text));
      return row;
    }),
  );
  document.getElementById("model").hidden = false;
  document.getElementById("limits").textContent = words("limits", { limit: sizes(limits.max_body_bytes)[0] });
  document.getElementById("classes").textContent = words("classes", { classes: classes[language()] ?? classes.en });
}

// Our own measurement, the last one, takes precedence over the published accuracy.
function accuracy({ evaluations, provenance }) {
  const last = evaluations.at(-1);
  if (last) {
    return words("model.accuracy.measured", {
      top1: accuracyPercent(last.top1 / 100),
      top5: accuracyPercent(last.top5 / 100),
      images: count(last.pictures),
      dataset: last.dataset,
    });
  }
  if (provenance?.published_accuracy) {
    return words("model.accuracy.published", { top1: accuracyPercent(provenance.published_accuracy / 100) });
  }
  return words("model.accuracy.unknown");
}
