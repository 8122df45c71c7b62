// Sample images for some label sets. samples/README.md names their sources.

import { facts } from "./api.js";
import { element } from "./results.js";
import { htmlLanguage, language, words } from "./translations.js";

const SAMPLES = {
  "imagenet1k": [
    { file: "cat.jpg", title: { en: "A cat", zh: "一只猫" }, by: "Stéfan van der Walt", licence: "CC0" },
    { file: "espresso.jpg", title: { en: "A cup of coffee", zh: "一杯咖啡" }, by: "Rachel Michetti", licence: "CC0" },
    { file: "rocket.jpg", title: { en: "A rocket", zh: "一枚火箭" }, by: "SpaceX", licence: "public domain" },
  ],
  "fashion-mnist": [
    { file: "sneaker.png", title: { en: "A sneaker", zh: "一只运动鞋" }, by: "Zalando Research", licence: "MIT" },
    { file: "dress.png", title: { en: "A dress", zh: "一条连衣裙" }, by: "Zalando Research", licence: "MIT" },
    { file: "bag.png", title: { en: "A bag", zh: "一个包" }, by: "Zalando Research", licence: "MIT" },
    { file: "coat.png", title: { en: "A coat", zh: "一件大衣" }, by: "Zalando Research", licence: "MIT" },
  ],
};

/** Show the samples that fit the model's classes; `chosen` is called with a file and functions for name and credit. */
export function renderSamples(chosen) {
  const samples = SAMPLES[facts?.metadata.labels?.name] ?? [];
  const section = document.getElementById("samples");
  section.hidden = samples.length === 0;
  section.querySelector("ul").replaceChildren(
    ...samples.map((sample) => {
      const { file, title, by, licence } = sample;
      const credit = () => words("samples.credit", { by, licence });
      const item = element("li");
      const button = element("button", "sample");
      const image = element("img");
      image.src = `web/samples/${file}`;
      image.alt = "";
      button.type = "button";
      button.append(image, element("span", "", title[language()]));
      button.addEventListener("click", async () => {
        const data = await (await fetch(image.src)).blob();
        chosen(new File([data], file, { type: data.type }), () => title[language()], credit);
      });
      const note = element("span", "note", credit());
      note.lang = htmlLanguage();
      item.append(button, note);
      return item;
    }),
  );
}
