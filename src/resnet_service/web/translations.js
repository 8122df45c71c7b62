// The page's texts in each of its languages, and how each formats numbers and dates.

import { keep, recall } from "./storage.js";

const WORDS = {
  en: {
    "language.name": "English",
    "language.tag": "en",
    "title": "What is in this image?",
    "drop": "Drop images here, or paste one",
    "choose": "Choose images",
    "photograph": "Take a photo",
    "limits": "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF, up to {limit} each",
    "classes": "The model knows {classes}",
    "samples": "Or try one of these",
    "samples.credit": "{by}, {licence}",
    "sample.cat": "A cat",
    "sample.espresso": "A cup of coffee",
    "sample.rocket": "A rocket",
    "sample.sneaker": "A sneaker",
    "sample.dress": "A dress",
    "sample.bag": "A bag",
    "sample.coat": "A coat",
    "results": "Results",
    "remove": "Remove {name}",
    "remove.short": "Remove",
    "photo.pasted": "Pasted image",
    "waiting": "Waiting…",
    "looking": "Classifying…",
    "busy": "The service is busy. Trying again in {seconds} s (attempt {attempt} of {attempts}).",
    "again": "Try again",
    "more": "Show {count} more",
    "fewer": "Show fewer",
    "seen": "{name}: {label}, {percent}.",
    "predictions": "Most likely classes for {name}",
    "preview": "Preview of {name}",
    "preview.none": "Your browser cannot display this image format, but the service can read it.",
    "heat.how": "Select a class to see which parts of the image support it.",
    "heat.strength": "Opacity",
    "heat.shown": "Evidence for “{label}”",
    "heat.little": "weak",
    "heat.much": "strong",
    "heat.loading": "Drawing the heatmap…",
    "heat.announced": "The heatmap shows the evidence for “{label}”.",
    "heat.gone": "Heatmap hidden.",
    "heat.unable": "This model cannot show which parts of an image support a class.",
    "time": "Time",
    "time.decode": "decoding",
    "time.preprocess": "preprocessing",
    "time.inference": "inference",
    "time.rest": "transfer and queue",
    "time.total": "{total} round trip",
    "image.facts": "{width} × {height} {format}",
    "model.title": "Current model",
    "model.name": "Model",
    "model.name.is": "{name}, {arch} in {precision}",
    "model.version": "Version",
    "model.classes": "Classes",
    "model.accuracy": "Accuracy",
    "model.accuracy.measured": "{top1} top-1, {top5} top-5, measured on {images} images ({dataset})",
    "model.accuracy.published": "{top1} top-1, as published; not measured here",
    "model.accuracy.unknown": "not measured",
    "model.since": "Serving since",
    "model.weights": "Weights source",
    "reference": "API reference",
    "key.ask": "This service requires an API key.",
    "key.wrong": "The API key was not accepted. Check that it is complete and still valid.",
    "key.use": "Use key",
    "key.note": "The key stays in this tab and is sent only to this service.",
    "too.many": "Only the first {count} images were added.",
    "none.dropped": "The dropped item is not a file. Save the image first, then drop the file.",
    "error.body_too_large": "This file is {size}; the limit is {limit}.",
    "error.empty": "This file is empty.",
    "error.too_many_pixels": "This image has too many pixels; the limit is {pixels} million. Resize it first.",
    "error.not_an_image": "This is not an image in a supported format: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF. Convert HEIC to JPEG, or ask the operator to install the extra “heic”.",
    "error.unsupported_image": "This kind of image file is not supported. Save it as JPEG or PNG.",
    "error.broken_image": "This image is damaged and cannot be decoded. The file may be incomplete.",
    "error.request_too_slow": "The upload was too slow. Try again with a faster connection or a smaller image.",
    "error.overloaded": "The service is still busy after {attempts} attempts. Try again in a moment.",
    "error.deadline_exceeded": "The service took too long to answer. Try again in a moment.",
    "error.not_ready": "The service is starting or shutting down. Try again in a moment.",
    "error.too_many_connections": "The service has too many open connections. Try again in a moment.",
    "error.internal_error": "The service failed to answer. Its log has the reason.",
    "error.unsound_output": "The model failed on this image. The service's log has the reason.",
    "error.unauthorized": "This service requires an API key. Enter it above.",
    "error.offline": "You are offline. The image will be sent when you are back online.",
    "error.gone": "The service does not answer. Is it still running?",
    "error.unreadable": "The browser could not read this file. Was it moved or deleted?",
    "error.unexpected": "The service rejected the request: {detail}",
  },
  zh: {
    "language.name": "中文",
    "language.tag": "zh-Hans",
    "title": "图片里有什么？",
    "drop": "把图片拖到这里，或直接粘贴",
    "choose": "选择图片",
    "photograph": "拍照",
    "limits": "JPEG、PNG、WebP、GIF、BMP、TIFF 或 AVIF，每张不超过 {limit}",
    "classes": "此模型可识别 {classes}",
    "samples": "或者试试这些图片",
    "samples.credit": "{by}，{licence}",
    "sample.cat": "一只猫",
    "sample.espresso": "一杯咖啡",
    "sample.rocket": "一枚火箭",
    "sample.sneaker": "一只运动鞋",
    "sample.dress": "一条连衣裙",
    "sample.bag": "一个包",
    "sample.coat": "一件大衣",
    "results": "结果",
    "remove": "移除 {name}",
    "remove.short": "移除",
    "photo.pasted": "粘贴的图片",
    "waiting": "等待中……",
    "looking": "正在识别……",
    "busy": "服务繁忙，{seconds} 秒后重试（第 {attempt} 次，共 {attempts} 次）。",
    "again": "重试",
    "more": "再显示 {count} 个",
    "fewer": "收起",
    "seen": "{name}：{label}，{percent}。",
    "predictions": "{name} 最可能的类别",
    "preview": "{name} 的预览",
    "preview.none": "浏览器无法显示这种格式的图片，但服务可以读取。",
    "heat.how": "选择一个类别，查看图片中支持它的区域。",
    "heat.strength": "不透明度",
    "heat.shown": "对“{label}”的支持程度",
    "heat.little": "弱",
    "heat.much": "强",
    "heat.loading": "正在生成热力图……",
    "heat.announced": "热力图已显示图片中支持“{label}”的区域。",
    "heat.gone": "热力图已隐藏。",
    "heat.unable": "此模型无法显示图片中哪些区域支持某个类别。",
    "time": "用时",
    "time.decode": "解码",
    "time.preprocess": "预处理",
    "time.inference": "推理",
    "time.rest": "传输与排队",
    "time.total": "往返用时 {total}",
    "image.facts": "{width} × {height} {format}",
    "model.title": "当前模型",
    "model.name": "模型",
    "model.name.is": "{name}，{arch}，{precision}",
    "model.version": "版本",
    "model.classes": "类别数",
    "model.accuracy": "准确率",
    "model.accuracy.measured": "Top-1 {top1}，Top-5 {top5}，在 {images} 张图片上测得（{dataset}）",
    "model.accuracy.published": "Top-1 {top1}，由发布者公布，未在此实测",
    "model.accuracy.unknown": "未实测",
    "model.since": "服务开始时间",
    "model.weights": "权重来源",
    "reference": "API 文档",
    "key.ask": "此服务需要 API 密钥。",
    "key.wrong": "此 API 密钥未被接受。请检查是否完整、是否仍然有效。",
    "key.use": "使用密钥",
    "key.note": "密钥只保存在此标签页中，只发送给本服务。",
    "too.many": "只添加了前 {count} 张图片。",
    "none.dropped": "拖入的不是文件。请先保存图片，再拖入文件。",
    "error.body_too_large": "此文件为 {size}，上限为 {limit}。",
    "error.empty": "此文件是空的。",
    "error.too_many_pixels": "此图片像素过多，上限为 {pixels} 百万像素。请先缩小图片。",
    "error.not_an_image": "不支持此文件格式。支持的图片格式：JPEG、PNG、WebP、GIF、BMP、TIFF 和 AVIF。HEIC 请先转换为 JPEG，或请服务的维护者安装 heic 扩展。",
    "error.unsupported_image": "不支持这种类型的图片文件。请另存为 JPEG 或 PNG。",
    "error.broken_image": "此图片已损坏，无法解码。文件可能不完整。",
    "error.request_too_slow": "上传太慢。请换用更快的网络，或使用较小的图片。",
    "error.overloaded": "尝试 {attempts} 次后服务仍然繁忙。请稍后再试。",
    "error.deadline_exceeded": "服务响应超时。请稍后再试。",
    "error.not_ready": "服务正在启动或关闭。请稍后再试。",
    "error.too_many_connections": "服务的连接数过多。请稍后再试。",
    "error.internal_error": "服务未能给出结果，原因见服务日志。",
    "error.unsound_output": "模型处理此图片时出错，原因见服务日志。",
    "error.unauthorized": "需要 API 密钥，请在上方输入。",
    "error.offline": "您处于离线状态，恢复连接后将自动发送此图片。",
    "error.gone": "服务没有响应。它还在运行吗？",
    "error.unreadable": "浏览器无法读取此文件。它是否已被移动或删除？",
    "error.unexpected": "服务拒绝了此请求：{detail}",
  },
};
const REMEMBERED = "language";
const listeners = [];
let current = initial();

function initial() {
  const remembered = recall(REMEMBERED);
  if (remembered in WORDS) return remembered;
  return Object.keys(WORDS).find((key) => navigator.language.toLowerCase().startsWith(key)) ?? "en";
}

/** The page's language, as the service's parameter `lang` takes it. */
export const language = () => current;

/** The page's language for HTML's `lang` attribute. */
export const htmlLanguage = () => words("language.tag");

/** The language that the button switches to: the next one in the table. */
function next() {
  const all = Object.keys(WORDS);
  return all[(all.indexOf(current) + 1) % all.length];
}

export const knows = (key) => key in WORDS[current];

/** The text for `key`, with `{name}` replaced by `values.name`. */
export function words(key, values = {}) {
  return WORDS[current][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Call `listener` after each change of the language. */
export function onLanguage(listener) {
  listeners.push(listener);
}

export function switchLanguage() {
  current = next();
  keep(REMEMBERED, current, { always: true });
  translatePage();
  for (const listener of listeners) listener();
}

/** Translate the elements of index.html. */
export function translatePage() {
  document.documentElement.lang = htmlLanguage();
  document.title = words("title");
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = words(element.dataset.word);
  }
  for (const element of document.querySelectorAll("[data-word-label]")) {
    element.setAttribute("aria-label", words(element.dataset.wordLabel));
  }
  const other = document.getElementById("language");
  other.textContent = WORDS[next()]["language.name"];
  other.lang = WORDS[next()]["language.tag"];
}

export const count = (number) => new Intl.NumberFormat(current).format(number);

export const percent = (share) =>
  new Intl.NumberFormat(current, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(share);

/** An accuracy, measured on thousands of images, so that hundredths of a percent are shown. */
export const accuracyPercent = (share) =>
  new Intl.NumberFormat(current, { style: "percent", maximumFractionDigits: 2 }).format(share);

export const moment = (text) =>
  new Intl.DateTimeFormat(htmlLanguage(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));

export const milliseconds = (time) =>
  `${new Intl.NumberFormat(current, { maximumFractionDigits: time < 10 ? 1 : 0 }).format(time)} ms`;

/** Sizes in MB (2^20 bytes, as in the service), with enough digits to tell them apart. */
export function sizes(...bytes) {
  let shown = [];
  for (let digits = 1; digits < 7; digits++) {
    const format = new Intl.NumberFormat(current, { maximumFractionDigits: digits });
    shown = bytes.map((size) => `${format.format(size / 2 ** 20)} MB`);
    if (new Set(shown).size === shown.length && !shown.includes("0 MB")) break;
  }
  return shown;
}
