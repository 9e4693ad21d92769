"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  // The key stays when the page is loaded again.
  persistAuthorization: true,
  tryItOutEnabled: true,
  // Swagger's validator badge would ask a server on the Internet.
  validatorUrl: null,
});
