// A file of its own, so that the page's policy can refuse every script that is inline.
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  domNode: document.getElementById("api"),
  deepLinking: true,
  validatorUrl: null, // would send the address of this document to another host
  persistAuthorization: false, // a key that was typed in is gone with the page
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
});
