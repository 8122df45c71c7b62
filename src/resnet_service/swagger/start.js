// Shows this service's own description, and nothing else: no address of the visitor's choice (queryConfigEnabled), no
// badge of a validator elsewhere (validatorUrl).
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  queryConfigEnabled: false,
  validatorUrl: null,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
