/* Requests per second, latencies and memory of a SavedModel, in the library that TensorFlow Serving is made of.

   make -C examples/serving load_test
   examples/serving/load_test MODEL_DIR [--signature=NAME] [--requests=N] [--batch=N] [--memory_requests=N]
       [--concurrency=1,4,16] [--threads=N]

   MODEL_DIR is the folder of a version (with saved_model.pb). Inputs are those of the signature, read from the
   graph: images of 0.5, zeros elsewhere, `seed` counts the requests; a free dimension is of size --batch. For each
   concurrency so many threads send requests to one session, each as soon as its last one was answered. Then
   --memory_requests go to one thread, with the resident memory after a first tenth and at the end.
   Exit status: 0, or 1 with a line that says what failed. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tensorflow/c/c_api.h"

#define MAX_PORTS 64
#define MAX_DIMS 16

/* One input or output of a signature. */
typedef struct {
  char name[128];
  TF_Output port;
  TF_DataType dtype;
  int num_dims;
  int64_t dims[MAX_DIMS];
} Port;

typedef struct {
  TF_Session* session;
  Port inputs[MAX_PORTS], outputs[MAX_PORTS];
  int num_inputs, num_outputs;
  int64_t batch;
} Model;

/* What the threads of one measurement share. */
typedef struct {
  Model* model;
  int requests;
  int next;
  double* seconds;
  pthread_mutex_t lock;
} Run;

static void die(const char* what, const char* why) {
  fprintf(stderr, "error: %s: %s\n", what, why);
  exit(1);
}

static void check(TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) die(what, TF_Message(status));
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Resident memory in MB, 0 where the system does not tell. */
static double resident_mb(void) {
  FILE* f = fopen("/proc/self/statm", "r");
  long pages = 0;
  if (f) {
    if (fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    fclose(f);
  }
  return pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

/* --- Just enough of protocol buffers to find a signature in the MetaGraphDef. --- */

typedef struct {
  const unsigned char* data;
  size_t length;
} Bytes;

static unsigned long long read_varint(Bytes* b) {
  unsigned long long value = 0;
  for (int shift = 0; b->length && shift < 64; shift += 7) {
    unsigned char byte = *b->data;
    b->data++, b->length--;
    value |= (unsigned long long)(byte & 127) << shift;
    if (byte < 128) return value;
  }
  die("SavedModel", "its meta graph does not end as it should");
  return 0;
}

/* The next field of a message: 1 and its number, number or bytes; 0 at the end. */
static int next_field(Bytes* b, int* field, unsigned long long* number, Bytes* content) {
  if (!b->length) return 0;
  unsigned long long tag = read_varint(b);
  int kind = tag & 7;
  size_t size = kind == 1 ? 8 : kind == 5 ? 4 : 0;
  *field = (int)(tag >> 3);
  *number = 0;
  if (kind == 0) {
    *number = read_varint(b);
  } else if (kind == 2) {
    size = read_varint(b);
  }
  if (size > b->length) die("SavedModel", "its meta graph is cut off");
  content->data = b->data;
  content->length = size;
  b->data += size, b->length -= size;
  return 1;
}

/* TensorInfo: name = 1, dtype = 2, tensor_shape = 3 { dim = 2 { size = 1 } }. */
static void read_tensor_info(Bytes info, Port* port, TF_Graph* graph) {
  int field;
  unsigned long long number;
  Bytes content, dim;
  char name[256] = "";
  while (next_field(&info, &field, &number, &content)) {
    if (field == 1 && content.length < sizeof name) {
      memcpy(name, content.data, content.length);
      name[content.length] = 0;
    } else if (field == 2) {
      port->dtype = (TF_DataType)number;
    } else if (field == 3) {
      while (next_field(&content, &field, &number, &dim)) {
        if (field != 2) continue;
        int64_t size = 0;
        int inner;
        Bytes unused;
        while (next_field(&dim, &inner, &number, &unused))
          if (inner == 1) size = (int64_t)number;
        if (port->num_dims == MAX_DIMS) die(port->name, "too many axes");
        port->dims[port->num_dims++] = size;
      }
    }
  }
  char* colon = strrchr(name, ':');
  port->port.index = colon ? atoi(colon + 1) : 0;
  if (colon) *colon = 0;
  port->port.oper = TF_GraphOperationByName(graph, name);
  if (!port->port.oper) die("no operation in the graph", name);
}

/* A map entry of SignatureDef: key = 1, TensorInfo = 2. */
static void read_port(Bytes entry, Port* ports, int* count, TF_Graph* graph) {
  int field;
  unsigned long long number;
  Bytes content, info = {0, 0};
  if (*count == MAX_PORTS) die("signature", "more than 64 inputs or outputs");
  Port* port = &ports[(*count)++];
  while (next_field(&entry, &field, &number, &content)) {
    if (field == 1 && content.length < sizeof port->name) memcpy(port->name, content.data, content.length);
    if (field == 2) info = content;
  }
  read_tensor_info(info, port, graph);
}

/* MetaGraphDef: signature_def = 5 (map: key = 1, SignatureDef = 2 { inputs = 1, outputs = 2 }). */
static void read_signature(TF_Buffer* meta_graph, const char* wanted, Model* model, TF_Graph* graph) {
  Bytes all = {meta_graph->data, meta_graph->length}, entry, content;
  int field;
  unsigned long long number;
  while (next_field(&all, &field, &number, &entry)) {
    if (field != 5) continue;
    Bytes signature = {0, 0};
    int found = 0;
    while (next_field(&entry, &field, &number, &content)) {
      if (field == 1) found = content.length == strlen(wanted) && !memcmp(content.data, wanted, content.length);
      if (field == 2) signature = content;
    }
    while (found && next_field(&signature, &field, &number, &content)) {
      if (field == 1) read_port(content, model->inputs, &model->num_inputs, graph);
      if (field == 2) read_port(content, model->outputs, &model->num_outputs, graph);
    }
  }
  if (!model->num_outputs) die("the SavedModel has no signature", wanted);
}

static Model* load(const char* path, const char* signature, int threads) {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  if (threads > 0 && threads < 128) {
    /* ConfigProto: intra_op_parallelism_threads = 2, inter_op_parallelism_threads = 5. */
    unsigned char config[4] = {2 << 3, (unsigned char)threads, 5 << 3, (unsigned char)threads};
    TF_SetConfig(options, config, sizeof config, status);
    check(status, "--threads");
  }
  TF_Graph* graph = TF_NewGraph();
  TF_Buffer* meta_graph = TF_NewBuffer();
  const char* tags[] = {"serve"};
  Model* model = calloc(1, sizeof *model);
  if (!model) die("memory", "none is left");
  model->session = TF_LoadSessionFromSavedModel(options, NULL, path, tags, 1, graph, meta_graph, status);
  check(status, path);
  read_signature(meta_graph, signature, model, graph);
  TF_DeleteBuffer(meta_graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return model;
}

static TF_Tensor* make_input(const Model* model, const Port* port, int64_t number) {
  int64_t dims[MAX_DIMS], elements = 1;
  for (int i = 0; i < port->num_dims; i++) {
    dims[i] = port->dims[i] < 0 ? model->batch : port->dims[i];
    elements *= dims[i];
  }
  size_t bytes = elements * TF_DataTypeSize(port->dtype);
  TF_Tensor* tensor = TF_AllocateTensor(port->dtype, dims, port->num_dims, bytes);
  if (!tensor) die(port->name, "no memory for this input");
  memset(TF_TensorData(tensor), 0, bytes);
  if (!strcmp(port->name, "seed") && port->dtype == TF_INT64)
    for (int64_t i = 0; i < elements; i++) ((int64_t*)TF_TensorData(tensor))[i] = number;
  if (!strcmp(port->name, "images") && port->dtype == TF_FLOAT)
    for (int64_t i = 0; i < elements; i++) ((float*)TF_TensorData(tensor))[i] = 0.5f;
  return tensor;
}

/* One request, as a server runs it: inputs made, all outputs fetched. */
static void request(const Model* model, int64_t number, TF_Status* status) {
  TF_Output inputs[MAX_PORTS], outputs[MAX_PORTS];
  TF_Tensor *values[MAX_PORTS], *results[MAX_PORTS] = {0};
  for (int i = 0; i < model->num_inputs; i++) {
    inputs[i] = model->inputs[i].port;
    values[i] = make_input(model, &model->inputs[i], number);
  }
  for (int i = 0; i < model->num_outputs; i++) outputs[i] = model->outputs[i].port;
  TF_SessionRun(model->session, NULL, inputs, values, model->num_inputs, outputs, results, model->num_outputs, NULL, 0,
                NULL, status);
  check(status, "request");
  for (int i = 0; i < model->num_inputs; i++) TF_DeleteTensor(values[i]);
  for (int i = 0; i < model->num_outputs; i++) TF_DeleteTensor(results[i]);
}

static void* work(void* argument) {
  Run* run = argument;
  TF_Status* status = TF_NewStatus();
  for (;;) {
    pthread_mutex_lock(&run->lock);
    int number = run->next++;
    pthread_mutex_unlock(&run->lock);
    if (number >= run->requests) break;
    double begin = now();
    request(run->model, number, status);
    run->seconds[number] = now() - begin;
  }
  TF_DeleteStatus(status);
  return NULL;
}

static int by_size(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static double percentile(const double* sorted, int count, double share) {
  int i = (int)(share * count + 0.999999) - 1;
  return sorted[i < 0 ? 0 : i >= count ? count - 1 : i];
}

/* Sends `requests` from `concurrency` threads; prints a line of the table. */
static void measure(Model* model, int concurrency, int requests) {
  Run run = {.model = model, .requests = requests, .next = 0, .seconds = calloc(requests, sizeof(double))};
  pthread_t* threads = calloc(concurrency, sizeof *threads);
  if (!run.seconds || !threads) die("memory", "none is left");
  pthread_mutex_init(&run.lock, NULL);
  double begin = now();
  for (int i = 0; i < concurrency; i++)
    if (pthread_create(&threads[i], NULL, work, &run)) die("thread", "cannot be started");
  for (int i = 0; i < concurrency; i++) pthread_join(threads[i], NULL);
  double seconds = now() - begin;
  qsort(run.seconds, requests, sizeof(double), by_size);
  printf("| %d | %d | %.2f | %.1f | %.1f | %.1f | %.1f |\n", concurrency, requests, requests / seconds,
         1e3 * percentile(run.seconds, requests, 0.5), 1e3 * percentile(run.seconds, requests, 0.9),
         1e3 * percentile(run.seconds, requests, 0.99), resident_mb());
  fflush(stdout);
  pthread_mutex_destroy(&run.lock);
  free(run.seconds);
  free(threads);
}

/* Resident memory must not grow with the number of requests. */
static void measure_memory(Model* model, int requests) {
  TF_Status* status = TF_NewStatus();
  double first = 0;
  for (int i = 0; i < requests; i++) {
    request(model, i, status);
    if (i + 1 == (requests + 9) / 10) first = resident_mb();
  }
  TF_DeleteStatus(status);
  double last = resident_mb();
  printf("memory over %d requests: %.1f MB after the first tenth, %.1f MB at the end, %+.1f MB\n", requests, first, last,
         last - first);
}

static int number_of(const char* text, const char* flag) {
  char* end;
  long value = strtol(text, &end, 10);
  if (*end || end == text || value < 0 || value > 100000000) die(flag, "expected a number of 0 or more");
  return (int)value;
}

int main(int argc, char** argv) {
  const char *path = NULL, *signature = "serving_default", *concurrency = "1,4,16";
  int requests = 100, memory_requests = 1000, threads = 0, batch = 1;
  for (int i = 1; i < argc; i++) {
    if (!strncmp(argv[i], "--signature=", 12)) signature = argv[i] + 12;
    else if (!strncmp(argv[i], "--requests=", 11)) requests = number_of(argv[i] + 11, "--requests");
    else if (!strncmp(argv[i], "--memory_requests=", 18)) memory_requests = number_of(argv[i] + 18, "--memory_requests");
    else if (!strncmp(argv[i], "--concurrency=", 14)) concurrency = argv[i] + 14;
    else if (!strncmp(argv[i], "--threads=", 10)) threads = number_of(argv[i] + 10, "--threads");
    else if (!strncmp(argv[i], "--batch=", 8)) batch = number_of(argv[i] + 8, "--batch");
    else if (argv[i][0] == '-' || path) die("unknown argument", argv[i]);
    else path = argv[i];
  }
  if (!path) die("usage", "load_test MODEL_DIR [--signature=NAME] [--requests=N] ...");
  if (batch < 1) die("--batch", "expected 1 or more");
  double begin = now();
  Model* model = load(path, signature, threads);
  model->batch = batch;
  TF_Status* status = TF_NewStatus();
  double loaded = now();
  request(model, 0, status);
  printf("%s %s, batch %d: loaded in %.2f s, first request %.2f s, TensorFlow %s\n", path, signature, batch,
         loaded - begin, now() - loaded, TF_Version());
  printf("| concurrent | requests | requests/s | p50 ms | p90 ms | p99 ms | resident MB |\n");
  printf("| --- | --- | --- | --- | --- | --- | --- |\n");
  char* list = strdup(concurrency);
  for (char* part = strtok(list, ","); part && requests; part = strtok(NULL, ",")) {
    int count = number_of(part, "--concurrency");
    if (count < 1) die("--concurrency", "expected numbers of 1 or more");
    measure(model, count, requests);
  }
  free(list);
  if (memory_requests) measure_memory(model, memory_requests);
  TF_CloseSession(model->session, status);
  TF_DeleteSession(model->session, status);
  TF_DeleteStatus(status);
  free(model);
  return 0;
}
