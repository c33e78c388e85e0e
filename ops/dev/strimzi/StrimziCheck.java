import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.yaml.YAMLFactory;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;
import java.util.IdentityHashMap;
import java.util.Map;

/**
 * Reads KafkaTopics and KafkaUsers of YAML files with the classes of Strimzi's operator: java StrimziCheck.java FILE...
 *
 * <p>Prints one line for each resource that it has read. Exits with 1 and a line for each key that Strimzi does not know
 * and each value that it does not take.
 */
public class StrimziCheck {
    private static final Map<String, String> KINDS = Map.of(
            "KafkaTopic", "io.strimzi.api.kafka.model.topic.KafkaTopic",
            "KafkaUser", "io.strimzi.api.kafka.model.user.KafkaUser");

    private static int problems = 0;

    public static void main(String[] files) throws Exception {
        ObjectMapper yaml = new ObjectMapper(new YAMLFactory());
        ObjectMapper mapper = new ObjectMapper();
        for (String file : files) {
            var documents = yaml.readerFor(JsonNode.class).<JsonNode>readValues(Files.newBufferedReader(Path.of(file)));
            while (documents.hasNext()) {
                JsonNode document = documents.next();
                String kind = document.path("kind").asText();
                if (KINDS.containsKey(kind)) {
                    check(mapper, document, kind, kind + "/" + document.at("/metadata/name").asText());
                }
            }
        }
        System.exit(problems == 0 ? 0 : 1);
    }

    private static void check(ObjectMapper mapper, JsonNode document, String kind, String name) {
        try {
            walk(mapper.treeToValue(document, Class.forName(KINDS.get(kind))), name, new IdentityHashMap<>());
            System.out.println("read " + name);
        } catch (Exception error) {
            tell(name + ": " + error.getMessage().split("\n")[0]);
        }
    }

    /** Looks for unknown keys, which Strimzi's classes keep rather than refuse. */
    private static void walk(Object object, String where, IdentityHashMap<Object, Object> seen) throws Exception {
        if (object == null || seen.put(object, object) != null) {
            return;
        }
        if (object instanceof Collection<?> items) {
            int index = 0;
            for (Object item : items) {
                walk(item, where + "[" + index++ + "]", seen);
            }
        } else if (object.getClass().getName().startsWith("io.strimzi")) {
            for (Method method : object.getClass().getMethods()) {
                if (method.getParameterCount() == 0 && method.getName().startsWith("get")) {
                    visit(object, method, where, seen);
                }
            }
        }
    }

    private static void visit(Object object, Method getter, String where, IdentityHashMap<Object, Object> seen)
            throws Exception {
        if (getter.getName().equals("getAdditionalProperties")) {
            Map<?, ?> unknown = (Map<?, ?>) getter.invoke(object);
            if (unknown != null) {
                unknown.keySet().forEach(key -> tell(where + "." + key + ": is not a known key"));
            }
        } else if (!getter.getName().equals("getClass")) {
            walk(getter.invoke(object), where + "." + getter.getName().substring(3), seen);
        }
    }

    private static void tell(String problem) {
        problems++;
        System.out.println("error: " + problem);
    }
}
