import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;

/** Hears rows from Debezium's engine and does nothing with them; ends when it has heard as many as it was told. */
public class Drain {
  private static volatile Throwable failure;
  private static long heard;

  /** Takes settings of the engine, each as name=value, and rows=how many. */
  public static void main(String[] args) throws Exception {
    Properties settings = new Properties();
    for (String arg : args) {
      int at = arg.indexOf('=');
      settings.setProperty(arg.substring(0, at), arg.substring(at + 1));
    }
    long rows = Long.parseLong((String) settings.remove("rows"));
    CountDownLatch done = new CountDownLatch(1);
    DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
        .using(settings)
        .using((success, message, error) -> {
          if (!success) {
            failure = error != null ? error : new IllegalStateException(message);
          }
          done.countDown();
        })
        .notifying((batch, committer) -> {
          for (ChangeEvent<String, String> event : batch) {
            committer.markProcessed(event);
          }
          committer.markBatchFinished();
          heard += batch.size();
          if (heard >= rows) {
            done.countDown();
          }
        })
        .build();
    var runner = Executors.newSingleThreadExecutor();
    runner.execute(engine);
    done.await();
    engine.close();
    runner.shutdown();
    if (failure != null) {
      failure.printStackTrace();
    }
    if (heard != rows) {
      System.err.println(heard + " events for " + rows + " rows");
    }
    System.exit(failure == null && heard == rows ? 0 : 1);
  }
}
