// Sample images for some label sets. samples/README.md names their sources.

import { facts } from "./api.js";
import { element } from "./results.js";
import { htmlLanguage, words } from "./translations.js";

const SAMPLES = {
  "imagenet1k": [
    { file: "cat.jpg", by: "Stéfan van der Walt", licence: "CC0" },
    { file: "espresso.jpg", by: "Rachel Michetti", licence: "CC0" },
    { file: "rocket.jpg", by: "SpaceX", licence: "public domain" },
  ],
  "fashion-mnist": [
    { file: "sneaker.png", by: "Zalando Research", licence: "MIT" },
    { file: "dress.png", by: "Zalando Research", licence: "MIT" },
    { file: "bag.png", by: "Zalando Research", licence: "MIT" },
    { file: "coat.png", by: "Zalando Research", licence: "MIT" },
  ],
};

/** Show the samples that fit the model's classes; `chosen` is called with a file and functions for name and credit. */
export function renderSamples(chosen) {
  const samples = SAMPLES[facts?.metadata.labels?.name] ?? [];
  const section = document.getElementById("samples");
  section.hidden = samples.length === 0;
  section.querySelector("ul").replaceChildren(
    ...samples.map((sample) => {
      const { file, by, licence } = sample;
      const title = () => words(`sample.${file.split(".")[0]}`);
      const credit = () => words("samples.credit", { by, licence });
      const item = element("li");
      const button = element("button", "sample");
      const image = element("img");
      image.src = `web/samples/${file}`;
      image.alt = "";
      button.type = "button";
      button.append(image, element("span", "", title()));
      button.addEventListener("click", async () => {
        const data = await (await fetch(image.src)).blob();
        chosen(new File([data], file, { type: data.type }), title, credit);
      });
      const note = element("span", "note", credit());
      note.lang = htmlLanguage();
      item.append(button, note);
      return item;
    }),
  );
}
