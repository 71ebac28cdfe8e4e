// Triton's batching strategy for the engine: a batch holds requests of at most BUDGET tokens in all, or one request.
// Compiled by triton/export.py into the version folder, where the server looks for batchstrategy.so. The server itself
// provides the functions that are only declared here (tritonbackend.h, "Batching").
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct TRITONSERVER_Error TRITONSERVER_Error;
typedef struct TRITONBACKEND_Request TRITONBACKEND_Request;
typedef struct TRITONBACKEND_Input TRITONBACKEND_Input;
typedef struct TRITONBACKEND_Model TRITONBACKEND_Model;
typedef struct TRITONBACKEND_Batcher TRITONBACKEND_Batcher;

TRITONSERVER_Error *TRITONBACKEND_RequestInput(TRITONBACKEND_Request *, const char *, TRITONBACKEND_Input **);
TRITONSERVER_Error *TRITONBACKEND_InputProperties(TRITONBACKEND_Input *, const char **, int *, const int64_t **,
                                                  uint32_t *, uint64_t *, uint32_t *);

TRITONSERVER_Error *TRITONBACKEND_ModelBatcherInitialize(TRITONBACKEND_Batcher **batcher, TRITONBACKEND_Model *model) {
  (void)model;
  *batcher = NULL;
  return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatcherFinalize(TRITONBACKEND_Batcher *batcher) {
  (void)batcher;
  return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchInitialize(const TRITONBACKEND_Batcher *batcher, void **tokens) {
  (void)batcher;
  *tokens = calloc(1, sizeof(uint64_t));
  return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchIncludeRequest(TRITONBACKEND_Request *request, void *tokens, bool *include) {
  TRITONBACKEND_Input *ids;
  uint64_t bytes = 0, *used = tokens;
  TRITONSERVER_Error *error = TRITONBACKEND_RequestInput(request, "input__0", &ids);
  if (error == NULL) error = TRITONBACKEND_InputProperties(ids, NULL, NULL, NULL, NULL, &bytes, NULL);
  if (error != NULL) return error;
  *include = *used == 0 || *used + bytes / sizeof(int32_t) <= BUDGET;
  if (*include) *used += bytes / sizeof(int32_t);
  return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchFinalize(void *tokens) {
  free(tokens);
  return NULL;
}
