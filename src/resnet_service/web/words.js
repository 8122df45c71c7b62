// What the page says, in each language that it speaks, and how numbers and dates look in it.

import { keep, recall } from "./storage.js";

const WORDS = {
  en: {
    "title": "What is in this image?",
    "language.other": "中文",
    "drop": "Drop images here, or paste one",
    "choose": "Choose images",
    "photograph": "Take a photo",
    "limits": "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF, up to {limit} each",
    "samples": "Or try one of these",
    "samples.credit": "{by}, {licence}",
    "results": "Results",
    "remove": "Remove {name}",
    "remove.short": "Remove",
    "photo.pasted": "Pasted image",
    "waiting": "Waiting …",
    "looking": "Looking …",
    "busy": "The service is busy. Trying again in {seconds} s ({attempt} of {attempts}).",
    "again": "Try again",
    "more": "Show {count} more",
    "fewer": "Show fewer",
    "seen": "{name}: {label}, {percent}.",
    "predictions": "Most probable classes of {name}",
    "preview": "Preview of {name}",
    "preview.none": "Your browser cannot show this kind of image; the service can read it.",
    "heat.how": "Choose a class to see which parts of the image speak for it.",
    "heat.strength": "Strength",
    "heat.shown": "What speaks for “{label}”",
    "heat.little": "little",
    "heat.much": "much",
    "heat.loading": "Drawing the map …",
    "heat.announced": "The image now shows what speaks for “{label}”.",
    "heat.gone": "The map is hidden.",
    "heat.unable": "This model cannot show which parts of an image speak for a class.",
    "time": "Time",
    "time.decode": "decoding",
    "time.preprocess": "preparing",
    "time.inference": "network",
    "time.rest": "travel and queue",
    "time.total": "{total} from here and back",
    "image.facts": "{width} × {height} {format}",
    "model.title": "The model that answers",
    "model.name": "Model",
    "model.name.is": "{name}, {arch} in {precision}",
    "model.version": "Version",
    "model.classes": "Classes",
    "model.accuracy": "Accuracy",
    "model.accuracy.measured": "{top1} right at first, {top5} among the first five, measured on {images} images ({dataset})",
    "model.accuracy.published": "{top1} right at first, as its publisher says; not measured here",
    "model.accuracy.unknown": "not measured",
    "model.since": "Serving since",
    "model.weights": "Weights from",
    reference: "For programs: every operation",
    "key.ask": "This service wants an API key.",
    "key.wrong": "This API key is not accepted. Is it complete, and still valid?",
    "key.use": "Use it",
    "key.note": "It stays in this tab and goes to this service only.",
    "too.many": "Only the first {count} images were taken.",
    "none.dropped": "What you dropped holds no file. Save the image first, then drop the file.",
    "error.body_too_large": "This file is {size}; the limit is {limit}.",
    "error.empty": "This file is empty.",
    "error.too_many_pixels": "This image has too many pixels; the limit is {pixels} million. Make it smaller first.",
    "error.not_an_image": "This is not an image in a format that is read here: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.",
    "error.broken_image": "This image is damaged and cannot be decoded. Perhaps it was not copied whole.",
    "error.request_too_slow": "The upload was too slow. Try again with a better connection, or a smaller image.",
    "error.overloaded": "The service is still busy after {attempts} attempts. Try again in a moment.",
    "error.deadline_exceeded": "The service took too long to answer. Try again in a moment.",
    "error.not_ready": "The service is starting or shutting down. Try again in a moment.",
    "error.too_many_connections": "The service has too many connections. Try again in a moment.",
    "error.internal_error": "The service failed to answer; its log says why.",
    "error.unsound_output": "The model failed on this image; the service's log says why.",
    "error.unauthorized": "An API key is needed, see above.",
    "error.offline": "You are offline. This image is sent when you are connected again.",
    "error.gone": "The service does not answer. Is it still running?",
    "error.unreadable": "The browser could not read this file. Was it moved or deleted?",
    "error.unexpected": "The service refuses this: {detail}",
  },
  zh: {
    "title": "图片里有什么？",
    "language.other": "English",
    "drop": "把图片拖到这里，或直接粘贴",
    "choose": "选择图片",
    "photograph": "拍照",
    "limits": "JPEG、PNG、WebP、GIF、BMP、TIFF 或 AVIF，每张不超过 {limit}",
    "samples": "或者试试这些图片",
    "samples.credit": "{by}，{licence}",
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
    "preview.none": "浏览器无法显示这种图片，但服务可以读取。",
    "heat.how": "点选一个类别，查看图中哪些部分支持它。",
    "heat.strength": "强度",
    "heat.shown": "对“{label}”的支持程度",
    "heat.little": "低",
    "heat.much": "高",
    "heat.loading": "正在绘制……",
    "heat.announced": "图片上已显示支持“{label}”的部分。",
    "heat.gone": "已隐藏热力图。",
    "heat.unable": "此模型无法显示图中哪些部分支持某个类别。",
    "time": "用时",
    "time.decode": "解码",
    "time.preprocess": "预处理",
    "time.inference": "网络推理",
    "time.rest": "传输与排队",
    "time.total": "往返共 {total}",
    "image.facts": "{width} × {height} {format}",
    "model.title": "当前模型",
    "model.name": "模型",
    "model.name.is": "{name}，{arch}，{precision}",
    "model.version": "版本",
    "model.classes": "类别数",
    "model.accuracy": "准确率",
    "model.accuracy.measured": "首选正确 {top1}，前五名包含正确答案 {top5}，在 {images} 张图片上测得（{dataset}）",
    "model.accuracy.published": "首选正确 {top1}，由发布者公布，未在此测量",
    "model.accuracy.unknown": "未测量",
    "model.since": "开始服务",
    "model.weights": "权重来源",
    reference: "供程序调用：全部接口",
    "key.ask": "此服务需要 API 密钥。",
    "key.wrong": "此 API 密钥未被接受。请检查是否完整、是否仍然有效。",
    "key.use": "使用",
    "key.note": "密钥只保存在此标签页中，只发送给本服务。",
    "too.many": "只处理了前 {count} 张图片。",
    "none.dropped": "拖入的内容不是文件。请先保存图片，再把文件拖进来。",
    "error.body_too_large": "此文件为 {size}，上限为 {limit}。",
    "error.empty": "此文件是空的。",
    "error.too_many_pixels": "此图片像素过多，上限为 {pixels} 百万像素。请先缩小图片。",
    "error.not_an_image": "这不是可识别格式的图片。支持 JPEG、PNG、WebP、GIF、BMP、TIFF 和 AVIF。",
    "error.broken_image": "此图片已损坏，无法解码。可能没有复制完整。",
    "error.request_too_slow": "上传太慢。请在网络较好时重试，或使用较小的图片。",
    "error.overloaded": "尝试 {attempts} 次后服务仍然繁忙。请稍后再试。",
    "error.deadline_exceeded": "服务响应超时。请稍后再试。",
    "error.not_ready": "服务正在启动或关闭。请稍后再试。",
    "error.too_many_connections": "服务的连接数过多。请稍后再试。",
    "error.internal_error": "服务出错，原因见其日志。",
    "error.unsound_output": "模型处理此图片时出错，原因见服务日志。",
    "error.unauthorized": "需要 API 密钥，请在上方输入。",
    "error.offline": "您处于离线状态。恢复连接后将发送此图片。",
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
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** The page's language, as the service's `lang` has it. */
export const language = () => current;

/** As HTML's `lang` attribute has it; all of our Chinese is in simplified characters. */
export const htmlLanguage = () => (current === "zh" ? "zh-Hans" : current);

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
  current = current === "en" ? "zh" : "en";
  keep(REMEMBERED, current, { always: true });
  translatePage();
  for (const listener of listeners) listener();
}

/** Put the texts of what is in the page from the beginning. */
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
  other.textContent = words("language.other");
  other.lang = current === "en" ? "zh-Hans" : "en";
}

export const count = (number) => new Intl.NumberFormat(current).format(number);

export const percent = (share) =>
  new Intl.NumberFormat(current, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(share);

/** A share that was measured on thousands, of which tenths of a percent mean something. */
export const accuracyPercent = (share) =>
  new Intl.NumberFormat(current, { style: "percent", maximumFractionDigits: 2 }).format(share);

export const moment = (text) =>
  new Intl.DateTimeFormat(htmlLanguage(), { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));

export const milliseconds = (time) =>
  `${new Intl.NumberFormat(current, { maximumFractionDigits: time < 10 ? 1 : 0 }).format(time)} ms`;

/** Two sizes in MB (2^20 bytes, as the service counts them), with as many digits as it takes to tell them apart. */
export function sizes(...bytes) {
  let shown = [];
  for (let digits = 1; digits < 7; digits++) {
    const format = new Intl.NumberFormat(current, { maximumFractionDigits: digits });
    shown = bytes.map((size) => `${format.format(size / 2 ** 20)} MB`);
    if (new Set(shown).size === shown.length && !shown.includes("0 MB")) break;
  }
  return shown;
}
