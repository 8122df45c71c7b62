// Show this service's OpenAPI document and nothing else: no URL from the address bar (queryConfigEnabled), no badge from
// an external validator (validatorUrl).
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  queryConfigEnabled: false,
  validatorUrl: null,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
