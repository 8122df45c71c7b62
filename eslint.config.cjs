// For the page's ES modules. CommonJS for the same reason as tools/lint_workflows.cjs.

const js = require("@eslint/js");

// Only what the page uses: the full list of browser globals has names such as `name` and `event`, which hide mistakes.
const BROWSER = [
  ...["document", "window", "navigator", "localStorage", "sessionStorage", "performance", "fetch", "addEventListener"],
  ...["setTimeout", "clearTimeout", "AbortController", "Event", "File", "URL", "URLSearchParams"],
];

const FILES = ["src/resnet_service/web/*.js"];

module.exports = [
  { ...js.configs.recommended, files: FILES },
  {
    files: FILES,
    languageOptions: {
      ecmaVersion: "latest",
      sourceType: "module",
      globals: Object.fromEntries(BROWSER.map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "array-callback-return": "error",
      "curly": ["error", "multi-line"],
      "eqeqeq": "error",
      "no-implicit-coercion": "error",
      "no-promise-executor-return": "error",
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "Text from outside is text; the page's policy forbids it too." },
        { property: "outerHTML", message: "Text from outside is text; the page's policy forbids it too." },
      ],
      "no-shadow": ["error", { builtinGlobals: true }],
      "no-unused-private-class-members": "error",
      "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-template": "error",
      "quote-props": ["error", "consistent"],
    },
  },
];
